"""Property documents as one self-contained HTML file: a table, pictures, failures."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from matris.stores.report.elastic_constants import constants, independent
from matris.stores.report.figure_style import UNREADABLE, Picture, problem_of
from matris.stores.report.origin import is_demonstrator
from matris.stores.report.property_kinds import KINDS, kind_of
from matris.stores.report.templating import write_page

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from matris.stores.report.property_kinds import Document, PropertyKind

MAX_PICTURES = 60
"""Largest number of materials with pictures on a page."""

_STATES = {"max_steps": "not converged"}


def write_property_report(
    documents: Iterable[Mapping[str, Any] | BaseModel], directory_or_path: str | Path, title: str
) -> Path:
    """
    Write an HTML page of the results of one kind of property.

    Parameters
    ----------
    documents
        At least one document with its arrays loaded, all of the same kind (see
        `matris.stores.report.property_kinds.KINDS`). Mappings may have a ``source``.
    directory_or_path
        The file, if its name ends in ``.html``; otherwise a folder, and the file is named after the kind. Missing
        folders are created; an earlier page is replaced.
    title
        Headline.

    Returns
    -------
    Path
        The page. It contains its styles, scripts and pictures and works without a network.

    Raises
    ------
    ValueError
        If the kind is unknown, or the documents are of several kinds.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> failed = {
    ...     "elastic_tensor": None,
    ...     "state": "failed",
    ...     "error": "atoms too close",
    ...     "formula_pretty": "MgO",
    ...     "checkpoint": {"key": "tiny"},
    ... }
    >>> with TemporaryDirectory() as folder:
    ...     write_property_report([failed], folder, title="Oxides").name
    'elastic.html'
    """
    plain = [d.model_dump() if isinstance(d, BaseModel) else d for d in documents]
    name = kind_of(plain)
    kind = KINDS[name]
    pictures, n_left_out = _pictures(plain, kind)
    counts = Counter(map(_state, plain))
    path = Path(directory_or_path)
    path = path if path.suffix.lower() == ".html" else path / f"{name}.html"
    tensors = [constants(d) for d in plain]
    extra = independent(d for d, tensor in zip(plain, tensors, strict=True) if tensor)
    rows = [kind.row(d) + [tensor.get(name) for name in extra] for d, tensor in zip(plain, tensors, strict=True)]
    shown = [number for number, column in enumerate(zip(*rows, strict=True)) if any(v is not None for v in column)]
    columns = [*kind.columns, *(f"{constant}\nGPa" for constant in extra)]
    digits = [*kind.digits, *(1 for _ in extra)]
    write_page(
        path,
        "properties.html",
        plotly=bool(pictures),
        title=title,
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        kind=kind,
        states=", ".join(f"{count} {state}" for state, count in counts.items()),
        checkpoint_keys=sorted({d["checkpoint"]["key"] for d in plain}),
        is_demonstrator=is_demonstrator(plain),
        settings=_settings(plain),
        columns=[columns[number] for number in shown],
        digits=[digits[number] for number in shown],
        rows=[(d, _state(d), [row[number] for number in shown]) for d, row in zip(plain, rows, strict=True)],
        pictures=pictures,
        n_left_out=n_left_out,
        plot_names=[plot.__name__ for plot in kind.plots],
        failures=[d for d in plain if d["state"] == "failed"],
        origin=_origin(plain),
    )
    return path


def _state(document: Document) -> str:
    """State of a material in words."""
    state = str(document["state"])
    return _STATES.get(state, state)


def _settings(documents: Sequence[Document]) -> str:
    """List the settings that all documents share."""
    first = documents[0].get("settings") or {}
    shared = {
        name: value
        for name, value in first.items()
        if value is not None and all((d.get("settings") or {}).get(name) == value for d in documents)
    }
    return " · ".join(f"{name.replace('_', ' ')} {_setting(value)}" for name, value in shared.items())


def _setting(value: Any) -> str:
    """Write one setting."""
    if isinstance(value, (list, tuple)) and value and isinstance(value[0], (list, tuple)):
        return f"{len(value)} rows"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_setting, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _pictures(
    documents: Sequence[Document], kind: PropertyKind
) -> tuple[dict[int, tuple[Document, list[Picture]]], int]:
    """
    Draw the materials with results, at most `MAX_PICTURES`.

    Returns
    -------
    pictures
        Documents and their pictures by index in the list.
    n_left_out
        Number of further materials with results.
    """
    pictures: dict[int, tuple[Document, list[Picture]]] = {}
    n_left_out = 0
    for index, document in enumerate(documents):
        if document["state"] != "failed" and len(pictures) == MAX_PICTURES:
            n_left_out += 1
        elif len(pictures) < MAX_PICTURES and (drawn := pictures_of(document, kind)):
            pictures[index] = document, drawn
    return pictures, n_left_out


def pictures_of(document: Document, kind: PropertyKind) -> list[Picture]:
    """Draw one material; a picture that cannot be drawn has the reason. Empty for a failure without results."""
    pictures = []
    for plot in kind.plots:
        try:
            pictures.append(Picture.of(plot(document)))
        except UNREADABLE as error:
            if document["state"] != "failed":
                pictures.append(Picture(problem=problem_of(error)))
    return pictures


def _origin(documents: Sequence[Document]) -> dict[str, Any]:
    """Select checkpoint, software and machine, if all documents agree on them."""
    first = documents[0]
    fields = ("checkpoint", "device", "dtype", "versions")
    return {name: first.get(name) for name in fields if all(d.get(name) == first.get(name) for d in documents)}
