"""Export of a candidate store to an OPTIMADE JSON Lines file, which any OPTIMADE server can load."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matris.errors import MatrisError, StoreError
from matris.files.whole_file import whole_file
from matris.stores.optimade.resources import PREFIX, PROVIDER_FIELDS, resources, served

try:
    from optimade import __api_version__
    from optimade.models import EntryInfoResource, StructureResource
    from optimade.server.config import ServerConfig
    from optimade.server.schemas import retrieve_queryable_properties
except ImportError as error:
    raise MatrisError("OPTIMADE's tools are not installed: pip install 'matris-flows[optimade]'") from error

if TYPE_CHECKING:
    from typing import TextIO

    from matris.stores.candidate_store import CandidateStore


def export_optimade(candidates: CandidateStore, path: str | Path, *, with_references: bool = False) -> int:
    """
    Write all candidates with a relaxed structure as OPTIMADE JSON Lines.

    The first line names the OPTIMADE version, the second describes the fields, and each further line is a structure, in
    the order of ``id``. At most a few hundred structures are in memory at once.

    Parameters
    ----------
    candidates
        Store to export.
    path
        File; it appears under its name, in place of an earlier one, only when it is complete.
    with_references
        As for `matris.stores.optimade.resources.served`.

    Returns
    -------
    int
        Number of structures.

    Raises
    ------
    StoreError
        If the file cannot be written.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from matris.stores import CandidateStore
    >>> with TemporaryDirectory() as folder:
    ...     export_optimade(CandidateStore.open(folder), Path(folder, "structures.jsonl"))  # 0: the store is empty
    0
    """
    n_structures = 0
    try:
        with whole_file(Path(path)) as draft, draft.open("w", encoding="ascii") as file:
            _write(file, {"x-optimade": {"meta": {"api_version": __api_version__}}})
            _write(file, structure_info())
            for _, resource in resources(candidates, served(with_references=with_references)):
                _write(file, resource)
                n_structures += 1
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error}") from error
    return n_structures


def structure_info() -> dict[str, Any]:
    """Describe the fields of structures as in the OPTIMADE endpoint ``info/structures``."""
    properties = retrieve_queryable_properties(
        StructureResource, {"id", "type", "attributes"}, entry_type="structures", config=server_config()
    )
    info = EntryInfoResource(
        id="structures",
        type="info",
        formats=["json"],
        description="Crystals relaxed with the MatRIS interatomic potential",
        properties=properties,
        output_fields_by_format={"json": list(properties)},
    )
    resource: dict[str, Any] = info.model_dump(mode="json", exclude_unset=True)
    return resource


def server_config(**more: Any) -> ServerConfig:
    """Configure OPTIMADE's server for the fields of candidates; other settings come from its usual configuration."""
    return ServerConfig(
        **more,
        insert_test_data=False,
        database_backend="mongomock",
        mongo_database="matris",
        provider={
            "prefix": PREFIX,
            "name": "matris-flows",
            "description": "Crystals relaxed with the MatRIS interatomic potential, and their distance to the hull",
            "homepage": None,
        },
        provider_fields={
            "structures": [
                {"name": field.name, "type": field.type, "description": field.description}
                | ({"unit": field.unit} if field.unit else {})
                for field in PROVIDER_FIELDS
            ]
        },
        implementation={"name": "matris-flows", "version": version("matris-flows")},
    )


def _write(file: TextIO, line: dict[str, Any]) -> None:
    file.write(json.dumps(line, allow_nan=False, separators=(",", ":")) + "\n")
