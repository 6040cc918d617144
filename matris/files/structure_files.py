"""Structures of documents as files: CIF, CIF with symmetry, POSCAR."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from matris.files.whole_file import whole_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pymatgen.core.structure import Structure

type StructureFormat = Literal["cif", "symmetrized-cif", "poscar"]

SUFFIXES: dict[str, str] = {"cif": ".cif", "symmetrized-cif": ".cif", "poscar": ".vasp"}
"""Suffixes of files by their format."""

SYMPREC = 0.1
"""Distance tolerance of the symmetry search (Å), in files and documents, as used by emmet and the Materials Project."""

UNCONVERGED = "-unconverged"
"""End of the names, before the suffix, of files of structures whose relaxation has not converged."""


def structure_text(structure: Structure, form: str = "cif") -> str:
    """
    Write a structure as text.

    Parameters
    ----------
    structure
        Structure to write.
    form
        ``"cif"``: the cell as it is, in P 1. ``"symmetrized-cif"``: the conventional cell with the operations of the
        space group found within `SYMPREC`, atoms and lattice moved so that it is
        exact; as ``"cif"`` where no space group is found. ``"poscar"``: VASP's format, atoms in their order.

    Examples
    --------
    >>> from pymatgen.core import Lattice, Structure
    >>> salt = Structure(Lattice.cubic(4.12), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    >>> structure_text(salt, "symmetrized-cif").splitlines()[2]
    '_symmetry_space_group_name_H-M   Pm-3m'
    >>> structure_text(salt, "poscar").splitlines()[5:7]
    ['Cs Cl', '1 1']
    """
    if form == "poscar":
        return str(structure.to(fmt="poscar"))
    if form == "symmetrized-cif":
        from pymatgen.io.cif import CifWriter
        from pymatgen.symmetry.analyzer import SymmetryUndeterminedError

        try:
            return str(CifWriter(structure, symprec=SYMPREC))
        except (SymmetryUndeterminedError, TypeError):  # TypeError: of a cell that spglib cannot reduce
            pass
    return str(structure.to(fmt="cif"))


def file_name(stem: str, state: str | None, form: str = "cif") -> str:
    """
    Name the file of a structure; the name tells if the relaxation has not converged.

    Examples
    --------
    >>> file_name("MgO", "converged"), file_name("MgO", "max_steps", "poscar")
    ('MgO.cif', 'MgO-unconverged.vasp')
    """
    return f"{stem}{UNCONVERGED if state == 'max_steps' else ''}{SUFFIXES[form]}"


def write_structures(
    structures: Iterable[tuple[Mapping[str, Any], Structure]],
    folder: str | Path,
    form: str = "cif",
    *,
    labelled: bool = False,
) -> int:
    """
    Write each structure to a file named by formula and document id; return the number of files.

    Parameters
    ----------
    structures
        Documents with their structures.
    folder
        Folder for the files; it is created if it does not exist.
    form
        Key of `SUFFIXES`, see `structure_text`.
    labelled
        Whether the names also hold the key of the checkpoint and the digest of the settings.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    n = 0
    for document, structure in structures:
        label = f"-{document['checkpoint']['key']}-{document['settings']['digest']}" if labelled else ""
        stem = re.sub(r"[^\w.-]", "_", f"{document['formula_pretty']}-{document['document_id']}{label}")
        with whole_file(folder / file_name(stem, document.get("state"), form), sync=False) as draft:
            draft.write_text(structure_text(structure, form), encoding="utf-8")
        n += 1
    return n
