"""Files that a user downloads: results of a search in all formats of `matris export`, one structure, one document."""

from __future__ import annotations

import json
import re
import shutil
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from matris.files.structure_files import SUFFIXES, file_name, structure_text
from matris.stores.query.export import export
from matris.stores.query.tables import json_ready

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pymatgen.core import Structure

    from matris.stores.query.query import CandidateQuery

_ENDINGS = {"csv": ".csv", "jsonl": ".jsonl", "entries": ".json", "extxyz": ".xyz"}


def results_file(query: CandidateQuery, form: str, folder: Path) -> Path:
    """
    Write the results of a query to one file.

    Parameters
    ----------
    query
        Candidates.
    form
        One of `matris.stores.query.export.FORMATS`; formats of one file per structure are packed into a ZIP archive.
    folder
        Folder for the file.

    Returns
    -------
    Path
        The file.

    Examples
    --------
    >>> from pathlib import Path
    >>> from matris.stores import CandidateStore
    >>> with TemporaryDirectory() as folder:
    ...     query = CandidateStore.open(folder).query()  # the store is empty
    ...     [results_file(query, form, Path(folder)).name for form in ("csv", "poscar")]
    ['results.csv', 'results-poscar.zip']
    """
    if form not in SUFFIXES:
        path = folder / f"results{_ENDINGS[form]}"
        export(query, path, form)
        return path
    with TemporaryDirectory(dir=folder) as structures:
        export(query, folder.__class__(structures), form)
        archive = shutil.make_archive(str(folder / f"results-{form}"), "zip", structures)
    return folder / archive


def structure_file(document: Mapping[str, Any], structure: Structure, form: str) -> tuple[str, str]:
    """Name and text of the file of a structure; the name tells if the relaxation has not converged."""
    return file_name(_stem(document), document.get("state"), form), structure_text(structure, form)


def document_file(document: Mapping[str, Any]) -> tuple[str, str]:
    """Name and text of the file of a document."""
    return f"{_stem(document)}.json", json.dumps(json_ready(dict(document)), indent=1)


def _stem(document: Mapping[str, Any]) -> str:
    """Name of a file: formula and the beginning of the id, all of it harmless in a header and in a folder."""
    name = f"{document.get('formula_pretty') or 'candidate'}-{document['candidate_id'][:8]}"
    return re.sub(r"[^A-Za-z0-9.-]", "_", name)
