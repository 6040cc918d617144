"""Property documents as one self-contained HTML file: a table, pictures, failures."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from matris.stores.report.figure_style import Picture
from matris.stores.report.property_kinds import KINDS, kind_of
from matris.stores.report.templating import write_page

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from matris.stores.report.property_kinds import Document, PropertyKind

MAX_PICTURES = 60
"""Materials whose pictures a page holds."""

_STATES = {"max_steps": "not converged"}


def write_property_report(
    documents: Iterable[Mapping[str, Any] | BaseModel], directory_or_path: str | Path, title: str
) -> Path:
    """
    Write an HTML page of the results of one kind of property.

    Parameters
    ----------
    documents
        At least one, all of the same kind (see `matris.stores.report.property_kinds.KINDS`), their arrays loaded; as
        mappings they may have a ``source``.
    directory_or_path
        The file, if its name ends in ``.html``; else a folder, in which the page is named after the kind. What does
        not exist is made; an earlier page is replaced.
    title
        Headline.

    Returns
    -------
    Path
        The page. It holds its styles, scripts and pictures and can be sent by itself.

    Raises
    ------
    ValueError
        If the documents are of no kind known, or not all of the same.
    """
    plain = [d.model_dump() if isinstance(d, BaseModel) else d for d in documents]
    name = kind_of(plain)
    kind = KINDS[name]
    pictures, n_left_out = _pictures(plain, kind)
    counts = Counter(map(_state, plain))
    path = Path(directory_or_path)
    path = path if path.suffix.lower() == ".html" else path / f"{name}.html"
    write_page(
        path,
        "properties.html",
        plotly=bool(pictures),
        title=title,
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        kind=kind,
        states=", ".join(f"{count} {state}" for state, count in counts.items()),
        checkpoint_keys=sorted({d["checkpoint"]["key"] for d in plain}),
        settings=_settings(plain),
        rows=[(d, _state(d), kind.row(d)) for d in plain],
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
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_setting, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _pictures(
    documents: Sequence[Document], kind: PropertyKind
) -> tuple[dict[int, tuple[Document, list[Picture]]], int]:
    """
    Draw the materials that have something to draw.

    Returns
    -------
    pictures
        Documents and their pictures by place in the list.
    n_left_out
        Number of further materials with results.
    """
    pictures: dict[int, tuple[Document, list[Picture]]] = {}
    n_left_out = 0
    for index, document in enumerate(documents):
        if document["state"] != "failed" and len(pictures) == MAX_PICTURES:
            n_left_out += 1
        elif len(pictures) < MAX_PICTURES and (drawn := _drawn(document, kind)):
            pictures[index] = document, drawn
    return pictures, n_left_out


def _drawn(document: Document, kind: PropertyKind) -> list[Picture]:
    """Draw one material, or say why that is impossible; empty for a failure without results."""
    pictures = []
    for plot in kind.plots:
        try:
            pictures.append(Picture.of(plot(document)))
        except ValueError as error:
            if document["state"] != "failed":
                pictures.append(Picture(problem=str(error)))
    return pictures


def _origin(documents: Sequence[Document]) -> dict[str, Any]:
    """Checkpoint, software and machine, as far as all documents agree on them."""
    first = documents[0]
    fields = ("checkpoint", "device", "dtype", "versions")
    return {name: first.get(name) for name in fields if all(d.get(name) == first.get(name) for d in documents)}
