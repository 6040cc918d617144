"""Crystals of CIF files, one data block after the other."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pymatgen.io.cif import CifParser

from matris.files.text import MAX_SITES, MAX_TEXT, lines_of
from matris.flows.sources.defects import check_cif
from matris.flows.sources.parsed import Parsed, attempt

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import TextIO

    from pymatgen.core.structure import Structure

_CIF_DEFECTS = ("Missing elements", "Incorrect stoichiometry", "implicit hydrogens")
"""Warnings of pymatgen's CIF parser after which its structure differs from the one in the file."""

_SPACE_GROUP_KEYS = (
    "_symmetry_space_group_name_H-M",
    "_space_group_name_H-M_alt",
    "_symmetry_Int_Tables_number",
    "_space_group_IT_number",
)


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
    parser: Any = CifParser.from_str(block)
    (data,) = parser.as_dict().values()
    if len(data.get("_atom_site_label", ())) > MAX_SITES:
        raise ValueError(f"it lists more than {MAX_SITES} atom sites")
    check_cif(data)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        structures = parser.parse_structures(primitive=False, on_error="raise")
    for message in dict.fromkeys([*(str(w.message) for w in caught), *parser.warnings]):
        if any(defect in message for defect in _CIF_DEFECTS):
            raise ValueError(message)
        if "Defaulting to P1" in message and (group := _space_group(data)) not in {None, "P1", "1"}:
            raise ValueError(f"unknown space group {group!r}, and no symmetry operations")
    structure: Structure = structures[0]
    return structure


def _space_group(data: dict[str, Any]) -> str | None:
    """Read the space group, a symbol or a number."""
    for key in _SPACE_GROUP_KEYS:
        if (value := data.get(key)) not in {None, "?", "."}:
            return str(value).replace(" ", "")
    return None
