"""Crystals of CIF files, one data block after the other."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from pymatgen.core.operations import SymmOp
from pymatgen.io.cif import CifBlock, CifParser, str2float

from matris.files.text import MAX_SITES, MAX_TEXT, lines_of
from matris.flows.sources.cif_checks import check_cif
from matris.flows.sources.cif_sites import as_columns, check_labels, contents_problem, multiplicities, repair_sites
from matris.flows.sources.parsed import Parsed, SourceWarning, attempt, element_composition
from matris.flows.sources.space_groups import is_by_number_alone, named_settings, names_more_than, number_of
from matris.flows.sources.special_positions import decimals, on_special_position
from matris.structures import problem_with

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import TextIO

    from numpy.typing import NDArray
    from pymatgen.core.operations import MagSymmOp
    from pymatgen.core.structure import Structure

    from matris.flows.sources.space_groups import Setting

_CIF_DEFECTS = ("Missing elements", "Incorrect stoichiometry", "implicit hydrogens")
"""Warnings of pymatgen's CIF parser after which its structure differs from the one in the file."""

_OPERATION_KEYS = (
    "_symmetry_equiv_pos_as_xyz",
    "_symmetry_equiv_pos_as_xyz_",
    "_space_group_symop_operation_xyz",
    "_space_group_symop_operation_xyz_",
)

_FAR_MOVE = 0.01
"""Distance (Å) from which a site's move onto its special position is told."""

_DENOMINATOR, _ROUNDED = 24, 1e-3
"""Denominator of all translations in space groups, and the largest error of a rounded one."""


@dataclass
class _Block:
    """A data block that is being read; of a block that is too long, only the beginning is kept."""

    name: str
    lines: list[str] = field(default_factory=list)
    length: int = 0

    def add(self, line: str) -> None:
        self.length += len(line)
        if self.length <= MAX_TEXT:
            self.lines.append(line)

    def is_metadata(self) -> bool:
        """Whether the block holds no crystal, as the first block of many publications."""
        return self.length <= MAX_TEXT and not any(
            "_atom_site_" in line or "_cell_length_" in line for line in self.lines
        )


def read_cif(stream: TextIO) -> Iterator[Parsed]:
    """Yield the crystals of all data blocks; blocks of metadata count only if the file has no others."""
    metadata: _Block | None = None
    has_crystal = False
    for block in _blocks(lines_of(stream)):
        if block.name and not block.is_metadata():
            has_crystal = True
            yield _parsed(block)
        else:
            metadata = metadata if metadata and metadata.name else block
    if metadata and not has_crystal:
        yield _parsed(metadata)


def _parsed(block: _Block) -> Parsed:
    text = "".join(block.lines)
    if not block.lines or not block.lines[0].startswith("data_"):
        return Parsed(None, "unreadable CIF: it holds no data block", text=text)
    location = {"block": block.name}
    if block.length > MAX_TEXT:
        return Parsed(None, f"unreadable CIF: a block of more than {MAX_TEXT} characters", location, text)
    return attempt(lambda: _structure(text), location, text, "CIF")


def _blocks(lines: Iterable[str]) -> Iterator[_Block]:
    """Split at ``data_`` lines outside of text fields, as the parser checks only the first block of a file."""
    block = _Block("")  # text before the first data block
    in_text_field = False
    again: int | None = None  # line within a text field that looks like the start of a block
    for line in lines:
        starts = line.lstrip().lower().startswith("data_")
        if line.startswith(";"):
            in_text_field, again = not in_text_field, None
        elif in_text_field and starts and len(line.split()) == 1:
            again = len(block.lines)
        elif again is not None and line.startswith("_cell_length_a"):  # so the text field was never closed
            rest, block.lines = block.lines[again:], block.lines[:again]
            yield block
            block, in_text_field, again = _begun(rest[0]), False, None
            for earlier in rest[1:]:
                block.add(earlier)
        if starts and not in_text_field:
            if block.lines:
                yield block
            block = _begun(line)
        elif block.lines or line.strip():
            block.add(line)
    if block.lines:
        yield block


def _begun(heading: str) -> _Block:
    name = heading.strip()[5:]
    return _Block(name or "?", [f"data_{name}\n"])


def _structure(block: str) -> Structure:
    parser: Any = _Parser.from_str(block)
    (data,) = parser.as_dict().values()
    if len(data.get("_atom_site_label", ())) > MAX_SITES:
        raise ValueError(f"it lists more than {MAX_SITES} atom sites")
    as_columns(data)
    check_cif(data)
    check_labels(data)
    if parser.feature_flags["magcif"] or listed_operations(data):
        return _parse(parser)
    lattice = parser.get_lattice(CifBlock(data, [], ""))
    settings = named_settings(data, np.eye(3) if lattice is None else np.asarray(lattice.matrix))
    if not settings:
        return _parse(parser)
    if is_by_number_alone(data):
        message = f"the space group has only a number: the setting {settings[0].name} is assumed"
        warnings.warn(message, SourceWarning, stacklevel=2)
    if len(settings) == 1:
        return _parse(parser, settings[0])
    return _only_possible(block, settings)


def _only_possible(block: str, settings: list[Setting]) -> Structure:
    """Choose the setting by what the file says of the whole cell, or by atoms that overlap in the others."""
    possible: dict[str, Structure] = {}
    reasons = []
    for setting in settings:
        try:
            structure = _parse(_Parser.from_str(block), setting)
        except ValueError as error:
            reasons.append(f"{setting.name}: {error}")
            continue
        problem = problem_with(structure) if structure.is_ordered else None
        if problem and "overlapping" in problem:
            reasons.append(f"{setting.name}: {problem}")
        else:
            possible[setting.name] = structure
    if not possible:
        raise ValueError("; ".join(reasons))
    if len(possible) > 1:
        raise ValueError(
            f"the space group may have the setting {' or '.join(possible)}, and the file does not say which: "
            "add the choice of origin to its name, or list the symmetry operations"
        )
    return next(iter(possible.values()))


def _parse(parser: Any, setting: Setting | None = None) -> Structure:
    """
    Make the structure of a block.

    Raises
    ------
    ValueError
        If it is malformed, or if the operations of a named setting make another cell than the file describes.
    """
    parser.setting = setting
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        structures = parser.parse_structures(primitive=False, on_error="raise")
    for message in dict.fromkeys([*(str(w.message) for w in caught), *parser.warnings]):
        if any(defect in message for defect in _CIF_DEFECTS):
            raise ValueError(message)
    structure: Structure = structures[0]
    if parser.masses:
        structure.add_site_property("masses", [parser.masses.get(site.label) for site in structure])
    (data,) = parser.as_dict().values()
    problems = [*parser.contradictions]
    if problem := contents_problem(data, element_composition(structure)):
        problems.append(problem)
    if problems and (setting is not None or parser.lacks_operations):
        name = data_name if setting is None and (data_name := parser.other_group) else getattr(setting, "name", "")
        raise ValueError(f"{problems[0]} (space group {name})")
    if parser.other_group is not None:
        problems.append(f"its operations are not those of the space group {parser.other_group!r}: they are used")
    for warning in caught:
        if issubclass(warning.category, SourceWarning):
            warnings.warn(str(warning.message), SourceWarning, stacklevel=2)
    for problem in problems:
        warnings.warn(problem, SourceWarning, stacklevel=2)
    return structure


class _Parser(CifParser):
    """
    pymatgen's parser with the operations of a named setting, and sites on their special positions.

    Attributes
    ----------
    setting
        Setting of the space group; None if the file lists operations, or names no space group.
    contradictions
        After parsing: sites whose multiplicity is not that of the file.
    other_group
        After parsing: name of the space group in the file if the listed operations are those of another one.
    masses
        After parsing: masses (u) of isotopes by the labels of their sites.
    lacks_operations
        After parsing: whether the identity is the only operation listed, though the file names another group than P1.
    """

    setting: Setting | None = None
    other_group: str | None = None
    lacks_operations = False
    masses: Mapping[str, float] = MappingProxyType({})
    contradictions: tuple[str, ...] = ()

    def get_symops(self, data: CifBlock) -> list[SymmOp]:
        """Give the operations, and prepare the sites for them."""
        self.masses = repair_sites(data.data)
        if self.setting is not None:
            rotations, translations = self.setting.rotations, self.setting.translations
        else:
            rotations, translations = _matrices(listed_operations(data.data) or ["x,y,z"])
            self.other_group = names_more_than(data.data, number_of(rotations, translations))
            self.lacks_operations = self.other_group is not None and len(rotations) == 1
        lattice = self.get_lattice(data)
        if lattice is not None:
            self._place(data.data, rotations, translations, np.asarray(lattice.matrix))
        return [
            SymmOp.from_rotation_and_translation(rotation, translation)
            for rotation, translation in zip(rotations, translations, strict=True)
        ]

    def get_magsymops(self, data: CifBlock) -> list[MagSymmOp]:
        """Give the magnetic operations."""
        self.masses = repair_sites(data.data)
        operations: list[MagSymmOp] = super().get_magsymops(data)
        return operations

    def _place(
        self,
        data: dict[str, Any],
        rotations: NDArray[np.float64],
        translations: NDArray[np.float64],
        cell: NDArray[Any],
    ) -> None:
        """Move sites onto their special positions, and compare their multiplicities with those of the file."""
        columns = [data.get(f"_atom_site_fract_{axis}", []) for axis in "xyz"]
        found = []
        for index, texts in enumerate(zip(*columns, strict=True)):
            place = np.array([str2float(text) for text in texts])
            if len(rotations) == 1:
                found.append(1)
                continue
            digits = [decimals(text) for text in texts]
            moved, multiplicity = on_special_position(place, digits, rotations, translations, cell)
            found.append(multiplicity)
            if moved is place:
                continue
            for column, value in zip(columns, moved, strict=True):
                column[index] = repr(float(value))
            if (distance := np.linalg.norm((moved - place) @ cell)) > _FAR_MOVE:
                label = data["_atom_site_label"][index]
                message = f"site {label} is moved by {distance:.3f} Å onto its special position"
                warnings.warn(message, SourceWarning, stacklevel=2)
        self.contradictions = tuple(
            f"site {label} has the multiplicity {found[index]}, and {stated} in the file"
            for index, label, stated in multiplicities(data)
            if index < len(found) and found[index] != stated
        )


def listed_operations(data: Mapping[str, Any]) -> list[str]:
    """Return the symmetry operations that a block lists, such as ``-x,y+1/2,z``."""
    for key in _OPERATION_KEYS:
        operations = data.get(key, ())
        texts = [operations] if isinstance(operations, str) else operations
        if found := [text for text in texts if text not in {"?", "."}]:
            return found
    return []


def _matrices(operations: list[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Read operations; translations such as 0.3333 are the fraction that they mean."""
    read = [SymmOp.from_xyz_str(text) for text in operations]
    translations = np.array([operation.translation_vector for operation in read])
    exact = np.rint(translations * _DENOMINATOR) / _DENOMINATOR
    translations = np.where(np.abs(translations - exact) < _ROUNDED, exact, translations)
    return np.array([operation.rotation_matrix for operation in read]), translations
