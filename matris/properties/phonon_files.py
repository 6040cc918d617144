"""Files from phonon documents: ``phonopy.yaml`` with force constants, ``band.yaml``, and the crystal of a mode."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from phonopy import Phonopy

from matris.files.stored_objects import decode_structure
from matris.files.structure_files import UNCONVERGED, file_name, structure_text
from matris.properties.phonons import BornCharges, correct_long_waves, run_bands, to_phonopy
from matris.structures import MASSES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

LARGE = ("structure", "force_constants", "unstable_mode")
"""Fields of a phonon document, with what is large in them, that these files need."""


def phonopy_of(document: Mapping[str, Any]) -> Phonopy:
    """
    Make phonopy's object again from a document.

    Parameters
    ----------
    document
        Fields of a `matris.stores.documents.properties.PhononDocument` with its structure and force constants loaded.

    Returns
    -------
    Phonopy
        With force constants (eV/Å²), masses, and the non-analytic correction if Born charges were given.

    Raises
    ------
    ValueError
        If the document has no force constants.
    """
    if document.get("force_constants") is None or document.get("structure") is None:
        why = document.get("error") or "they are not loaded"
        raise ValueError(f"{document.get('formula_pretty')} has no force constants: {why}")
    structure = decode_structure(document["structure"])
    if document.get("masses"):
        structure.add_site_property(MASSES, document["masses"])
    symprec = document["settings"]["symprec"]
    phonopy = Phonopy(
        to_phonopy(structure),
        supercell_matrix=document["supercell_matrix"],
        primitive_matrix=document["primitive_matrix"],
        symprec=symprec,
    )
    phonopy.force_constants = np.asarray(document["force_constants"], dtype=float)
    if document.get("born") is not None and document.get("epsilon_static") is not None:
        charges = BornCharges(np.asarray(document["born"]), np.asarray(document["epsilon_static"]))
        correct_long_waves(phonopy, charges, symprec)
    return phonopy


def write_phonon_files(documents: Iterable[Mapping[str, Any]], folder: str | Path) -> int:
    """
    Write a folder of files for each material: its force constants, its bands, and where its most unstable mode led.

    ``phonopy.yaml`` has the force constants, for `phonopy.load`; ``band.yaml`` the bands of the document;
    ``followed.cif`` the crystal relaxed along the most unstable mode. Names end in ``-unconverged`` if a relaxation has
    not converged.

    Parameters
    ----------
    documents
        As for `phonopy_of`, each with its ``source``, after whose name its folder is named. Those without force
        constants are left out.
    folder
        Folder of the folders; missing ones are created.

    Returns
    -------
    int
        Number of materials.
    """
    taken: set[Path] = set()
    for document in documents:
        if document.get("force_constants") is None:
            continue
        phonopy = phonopy_of(document)
        run_bands(phonopy, document["settings"]["symprec"])
        stem = re.sub(r"[^\w.-]", "_", Path(document["source"]).name.split(".")[0]) or "structure"
        mark = UNCONVERGED if document["state"] == "max_steps" else ""
        own = Path(folder) / f"{stem}{mark}"
        if own in taken:
            own = Path(folder) / f"{stem}-{document['candidate_id'][:8]}{mark}"
        taken.add(own)
        own.mkdir(parents=True, exist_ok=True)
        phonopy.save(own / "phonopy.yaml", settings={"force_constants": True})
        phonopy.write_yaml_band_structure(filename=own / "band.yaml")
        mode = document.get("unstable_mode") or {}
        if mode.get("structure"):
            text = structure_text(decode_structure(mode["structure"]))
            (own / file_name("followed", mode["state"])).write_text(text, encoding="utf-8")
    return len(taken)
