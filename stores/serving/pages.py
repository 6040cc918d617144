"""Content of the pages: a search, one candidate, the progress of campaigns, an error."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NamedTuple

from bson.errors import BSONError
from jinja2 import ChoiceLoader, PackageLoader
from markupsafe import Markup

from matris.errors import MatrisError, StoreError
from matris.files.stored_objects import DamagedStructureError, UnknownClassError
from matris.stores.documents.properties import property_output
from matris.stores.query.export import FORMATS
from matris.stores.report.crystals import crystal, looks
from matris.stores.report.origin import is_demonstrator
from matris.stores.report.property_kinds import KINDS
from matris.stores.report.property_page import pictures_of
from matris.stores.report.templating import environment
from matris.stores.report.top import TopCandidate, facts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jinja2 import Environment

    from matris.stores.query.query import CandidateQuery
    from matris.stores.report.figure_style import Picture
    from matris.stores.report.property_kinds import PropertyKind
    from matris.stores.serving.served_store import Opened

PAGE_SIZE = 50
"""Number of candidates in a page of a search."""

_COLUMNS = (
    ("formula_pretty", "Formula", ""),
    ("symmetry.number", "Space group", ""),
    ("energy_above_hull", "Above hull\nmeV/atom", "number"),
    ("formation_energy_per_atom", "Formation\neV/atom", "number"),
    ("elastic.bulk_modulus", "Bulk modulus\nGPa", "number"),
    ("phonon.has_imaginary_modes", "Imaginary\nmodes", ""),
    ("state", "State", ""),
    ("nsites", "Atoms", "number"),
    ("source", "Source, reason", ""),
)
"""Fields to sort by, with the headings and the style of their columns."""

_UNDRAWN = {"structure", "arrays", "force_constants"}  # large fields that no picture needs
_UNSTORABLE = (BSONError, OverflowError, UnicodeEncodeError)
_PLOTLY = Markup('<script src="/plotly.js"></script>')


class Search(NamedTuple):
    """
    What a user searches for.

    Attributes
    ----------
    text
        Filter, see docs/queries.md; empty for all candidates.
    order
        Fields to sort by, separated by commas; a leading ``-`` sorts in descending order.
    references
        Whether phases that only compete on hulls are candidates too.
    """

    text: str = ""
    order: str = "energy_above_hull"
    references: bool = False

    def query(self, opened: Opened) -> CandidateQuery:
        """
        Make the query.

        Raises
        ------
        MatrisError
            If the filter cannot be parsed, or there is no such field, with the message of `matris query`.
        """
        query = opened.candidates.query(with_references=self.references)
        query = query.where(self.text) if self.text.strip() else query
        return query.sort(*(name.strip() for name in self.order.split(",") if name.strip()))

    def address(self, **more: Any) -> dict[str, Any]:
        """Return the arguments of an address with the same search."""
        found = {"filter": self.text, "sort": self.order, "references": "yes" if self.references else ""} | more
        return {name: value for name, value in found.items() if value not in {"", None}}


def search_page(
    opened: Opened, search: Search, number: int, store_name: str, campaigns: Sequence[Mapping[str, Any]]
) -> tuple[str, bool]:
    """
    Write the page of a search.

    Returns
    -------
    tuple
        The page, and whether the search could be understood; otherwise the page says why not.
    """
    problem, documents, total, origins = "", [], 0, []
    try:
        query = search.query(opened)
        documents = list(query.page(number, PAGE_SIZE))
        total, origins = query.count(), query.origins()
    except (MatrisError, *_UNSTORABLE) as error:
        if not is_of_user(error):
            raise
        problem = str(error)
    page = _environment().get_template("search.html")
    text = page.render(
        title=f"Results in {store_name}",
        plotly_script="",
        search=search,
        problem=problem,
        documents=documents,
        total=total,
        number=number,
        last=max(1, -(-total // PAGE_SIZE)),
        origins=origins,
        columns=_COLUMNS,
        formats=FORMATS,
        is_demonstrator=is_demonstrator(documents),
        campaigns=campaigns,
        counts=counts(opened),
        script=Markup(files(__package__).joinpath("live.js").read_text(encoding="utf-8")),  # noqa: S704 - this package's
    )
    return text, not problem


def progress_part(opened: Opened, campaigns: Sequence[Mapping[str, Any]]) -> str:
    """Write the part of the search page that it fetches again and again."""
    return _environment().get_template("progress.html").render(campaigns=campaigns, counts=counts(opened))


def counts(opened: Opened) -> dict[str, int]:
    """Count the documents by state, and of these the states that occur."""
    states = sorted(opened.candidates.docs.distinct("state"))
    return {state: opened.candidates.docs.count({"state": state}) for state in states}


class Property(NamedTuple):
    """A property of a candidate: its kind, document, key numbers by column, and pictures."""

    kind: PropertyKind
    document: Mapping[str, Any]
    numbers: Sequence[tuple[str, Any, int]]
    pictures: Sequence[Picture]


def candidate_page(opened: Opened, document: Mapping[str, Any]) -> str:
    """Write the page of one candidate."""
    damage, structure = "", None
    try:
        structure = opened.candidates.structure(document["document_id"])
    except (DamagedStructureError, UnknownClassError) as error:
        damage = str(error)
    shape = None if structure is None else crystal(structure)
    shown = []
    if shape is not None:
        shape["name"] = f"{document['formula_pretty']}-{document['candidate_id'][:8]}"
        shown = [TopCandidate(document, facts(document), shape, None)]
    properties = [found for kind in KINDS if (found := _property(opened, document, kind)) is not None]
    page = _environment().get_template("candidate.html")
    return page.render(
        title=document.get("formula_pretty") or "candidate",
        plotly_script=_PLOTLY if any(found.pictures for found in properties) else "",
        document=document,
        top=shown,
        looks=looks(site[0] for candidate in shown for site in candidate.crystal["sites"]),
        facts=facts(document),
        properties=properties,
        has_structure=structure is not None,
        damage=damage,
        is_demonstrator=is_demonstrator([document]),
    )


def error_page(title: str, sentence: str) -> str:
    """Write a page that says what went wrong."""
    return _environment().get_template("error.html").render(title=title, sentence=sentence, plotly_script="")


def _property(opened: Opened, candidate: Mapping[str, Any], name: str) -> Property | None:
    """Read a property of a candidate and draw it; None if it was not computed, or its job's output is gone."""
    small = property_output(opened.jobs, name, candidate, [])
    if small is None:
        return None
    large = [key for key, value in small.items() if isinstance(value, dict) and "blob_uuid" in value]
    document = property_output(opened.jobs, name, candidate, [key for key in large if key not in _UNDRAWN]) or small
    kind = KINDS[name]
    values = zip(kind.columns, kind.row(document), kind.digits, strict=True)
    return Property(kind, document, list(values), pictures_of(document, kind))


def is_of_user(error: Exception) -> bool:
    """Tell errors of a search, such as a number that no document can hold, from those of the store."""
    of_store = isinstance(error, StoreError) or not isinstance(error, MatrisError)
    return not of_store or any(isinstance(e, _UNSTORABLE) for e in (error, error.__cause__))


@cache
def _environment() -> Environment:
    report = environment()
    of_report = [] if report.loader is None else [report.loader]
    return report.overlay(loader=ChoiceLoader([PackageLoader("matris.stores.serving"), *of_report]))
