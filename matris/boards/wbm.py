"""The WBM set in the layout of Matbench Discovery's files, read as it is needed."""

from __future__ import annotations

import csv
import io
import json
import zipfile
import zlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import ase.io
from monty.io import zopen
from pymatgen.entries.computed_entries import ComputedStructureEntry

from matris.boards.elements import read_elements
from matris.errors import BoardError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ase import Atoms

FILES = {
    "summary": "*wbm-summary*.csv*",
    "initial structures": "*wbm-initial-atoms*.zip",
    "entries": "*wbm-computed-structure-entries*.jsonl*",
    "elements": "*elemental-reference-entries*.json*",
}
_E_FORM, _E_HULL = "e_form_per_atom_mp2020_corrected", "e_above_hull_mp2020_corrected_ppd_mp"
_UNIQUE = "unique_prototype"
_TRUE = {"true": True, "false": False}


@dataclass(frozen=True, eq=False)
class WbmItem:
    """
    One structure of the set.

    Attributes
    ----------
    material_id, formula
        As in the summary.
    e_form, e_hull
        DFT's formation energy and distance from the hull of the Materials Project, corrected, eV/atom.
    is_unique
        Whether its prototype is not in the Materials Project, nor in the set with a lower energy.
    wbm
        The files.
    """

    material_id: str
    formula: str
    e_form: float
    e_hull: float
    is_unique: bool
    wbm: Wbm

    def initial(self) -> Atoms:
        """Read the structure before DFT's relaxation."""
        return self.wbm.initial(self.material_id)

    def entry(self) -> ComputedStructureEntry:
        """Read DFT's entry, with the relaxed structure."""
        return self.wbm.entry(self.material_id)


class Wbm:
    """
    The files of a folder.

    Memory holds the summary and the compressed entries, 1 kB each.

    Raises
    ------
    BoardError
        If a file or a column is missing, or the files are not of the same set.
    """

    def __init__(self, folder: Path) -> None:
        self._paths: dict[str, Path] = {}
        for what, pattern in FILES.items():
            found = sorted(folder.glob(pattern))
            if len(found) != 1:
                raise BoardError(f"{folder} holds {len(found)} files {pattern} ({what}): one is needed")
            self._paths[what] = found[0]

    def items(self) -> dict[str, WbmItem]:
        """Read the summary, and check that the other files have all its structures."""
        with zopen(self._paths["summary"], "rt", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            wanted = ("material_id", "formula", _E_FORM, _E_HULL, _UNIQUE)
            if missing := [name for name in wanted if name not in (rows.fieldnames or ())]:
                raise BoardError(f"{self._paths['summary']} has no column {', '.join(missing)}")
            found = [
                WbmItem(
                    row["material_id"],
                    row["formula"],
                    float(row[_E_FORM] or "nan"),
                    float(row[_E_HULL] or "nan"),
                    _TRUE[row[_UNIQUE].lower()],
                    self,
                )
                for row in rows
            ]
        for item in found:
            for what, held in (("initial structures", self._members), ("entries", self._entries)):
                if item.material_id not in held:
                    raise BoardError(f"{self._paths[what]} has no {item.material_id}, which the summary lists")
        return {item.material_id: item for item in found}

    def initial(self, material_id: str) -> Atoms:
        """Read one structure of the archive."""
        text = self._archive.read(self._members[material_id]).decode()
        return ase.io.read(io.StringIO(text), format="extxyz")

    def entry(self, material_id: str) -> ComputedStructureEntry:
        """Read one entry."""
        return ComputedStructureEntry.from_dict(json.loads(zlib.decompress(self._entries[material_id])))

    @cached_property
    def element_energies(self) -> dict[str, float]:
        """Energies per atom of the elements, eV."""
        return read_elements(self._paths["elements"])

    @cached_property
    def _archive(self) -> zipfile.ZipFile:
        return zipfile.ZipFile(self._paths["initial structures"])

    @cached_property
    def _members(self) -> dict[str, str]:
        """Names in the archive by material: ``[FOLDER/]ID.extxyz``."""
        names = [name for name in self._archive.namelist() if name.endswith(".extxyz")]
        return {name.rpartition("/")[2].removesuffix(".extxyz"): name for name in names}

    @cached_property
    def _entries(self) -> dict[str, bytes]:
        return dict(self._read_entries())

    def _read_entries(self) -> Iterator[tuple[str, bytes]]:
        with zopen(self._paths["entries"], "rt", encoding="utf-8") as lines:
            for line in lines:
                content: dict[str, Any] = json.loads(line)
                entry = json.dumps(content["computed_structure_entry"], separators=(",", ":"))
                yield content["material_id"], zlib.compress(entry.encode())
