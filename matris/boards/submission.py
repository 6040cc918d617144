"""
Files that Matbench Discovery takes: predictions, relaxed structures, and the shard from which its own runner merges.

The layouts are those of its module ``discovery.py`` (schema 1 of shards).
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from matris.files.whole_file import whole_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from matris.boards.board import Finished, Values


def write_submission(run: Finished) -> None:
    """Write ``discovery.csv.gz``, ``geo-opt.jsonl.gz`` and ``shard-I-of-N.jsonl``."""
    index, n_shards = run.shard
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(["material_id", "e_form_per_atom"])
    for key in run.items:
        e_form = run.results[key].get("e_form")
        rows.writerow([key, "" if e_form is None else e_form])
    with whole_file(run.folder / "discovery.csv.gz") as draft:
        draft.write_bytes(gzip.compress(table.getvalue().encode()))
    relaxed = ({"material_id": key, **_relaxed(run.results[key])} for key in run.items if _is_whole(run.results[key]))
    with whole_file(run.folder / "geo-opt.jsonl.gz") as draft, gzip.open(draft, "wt", encoding="utf-8") as file:
        file.writelines(_lines(relaxed))
    with whole_file(run.folder / f"shard-{index:03d}-of-{n_shards:03d}.jsonl") as draft:
        _write_lines(draft, _events(run))


def _is_whole(values: Values) -> bool:
    return values.get("e_form") is not None


def _relaxed(values: Values) -> Values:
    return {name: values[name] for name in ("structure", "energy", "converged", "n_steps")}


def _events(run: Finished) -> Iterator[dict[str, Any]]:
    """Yield the header of a shard, its records, and what is known of the run."""
    settings = run.board.settings
    fmax = settings["fmax_of"].get(run.contestant.name, settings["fmax"])
    yield {
        "type": "header",
        "model_key": run.contestant.name,
        "shard_index": run.shard[0],
        "n_shards": run.shard[1],
        "assigned_material_ids": list(run.items),
        "dataset_size": len(run.keys),
        "dataset_id_hash": hashlib.sha256("\n".join(sorted(run.keys)).encode()).hexdigest(),
        "settings": {
            "max_force": fmax,
            "max_steps": settings["max_steps"],
            "ase_optimizer": "FIRE",
            "cell_filter": "FrechetCellFilter",
        },
        "schema_version": 1,
    }
    for key in run.items:
        values = run.results[key]
        record = {"structure": None, "energy": None, "converged": False, "n_steps": 0, "error": values.get("error")}
        yield {"type": "record", "material_id": key, **record, **(_relaxed(values) if "structure" in values else {})}
    yield {
        "type": "run_metadata",
        "run_metadata": {
            "hardware": run.document["device"],
            "run_time_sec": run.document["seconds"],
            "completed_at": datetime.now(UTC).isoformat(),
            "versions": {name: found for name, found in run.document["versions"].items() if found},
        },
    }


def _write_lines(path: Path, content: Iterable[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(_lines(content))


def _lines(content: Iterable[dict[str, Any]]) -> Iterator[str]:
    return (json.dumps(each, allow_nan=False) + "\n" for each in content)
