"""Lazy queries of candidate documents: built step by step, run when they are read, one document at a time."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from itertools import batched
from typing import TYPE_CHECKING, Any, TextIO

from matris.errors import MatrisError
from matris.files.stored_objects import structure_of
from matris.stores.database.sqlite.filters import order_key
from matris.stores.documents.candidate import REFERENCE_SOURCES
from matris.stores.documents.documents import CandidateDocument
from matris.stores.documents.entries import structure_entry
from matris.stores.documents.fields import field_named, leaves, value_of
from matris.stores.query.conditions import EVERYTHING, Among, And, Missing, Not, to_criteria
from matris.stores.query.language import parse_filter
from matris.stores.query.order import KEY, in_order
from matris.stores.query.tables import COLUMNS, expanded, flat, heading, write_csv, write_jsonl

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from maggma.core import Store
    from pandas import DataFrame
    from pymatgen.core.structure import Structure
    from pymatgen.entries.computed_entries import ComputedStructureEntry

    from matris.stores.query.conditions import Condition
    from matris.stores.query.order import Order

type Document = dict[str, Any]

_ALL = {"_id": {"$exists": True}}  # for an empty filter, MongoDB would only estimate the count
_IS_REFERENCE = Among("source", tuple(sorted(REFERENCE_SOURCES)))
_BATCH = 1000  # ids per query
_STRUCTURES = 100  # structures per query


@dataclass(frozen=True, repr=False)
class CandidateQuery:
    """
    Query of candidate documents, made by `matris.stores.CandidateStore.query`.

    A query never changes; methods return a new query or an answer. Every answer is read anew from the store.

    Attributes
    ----------
    docs, data
        Stores of the documents, and of their structures and arrays.
    condition
        Condition that the documents meet.
    order
        Sort fields, each with 1 (ascending) or -1 (descending).
    offset, max_size
        Window of the sorted documents: number to skip, and maximum number; None means no limit.
    with_references
        Whether to include the elements, known phases and prototypes that only compete on the hulls of campaigns.

    Examples
    --------
    A store with two documents; `CandidateStore.open` opens the one of a campaign.

    >>> import sys
    >>> from maggma.stores import MemoryStore
    >>> docs, data = MemoryStore(key="document_id"), MemoryStore(key="document_id")
    >>> docs.connect()
    >>> data.connect()
    >>> docs.update(
    ...     [
    ...         {"document_id": "a", "formula_pretty": "Fe2O3", "chemsys": "Fe-O", "energy_above_hull": 0.0},
    ...         {"document_id": "b", "formula_pretty": "FeO", "chemsys": "Fe-O", "energy_above_hull": 0.03},
    ...     ]
    ... )
    >>> query = CandidateQuery(docs, data)
    >>> query.where("ehull <= 50 meV").sort("-ehull").first()["formula_pretty"]
    'FeO'
    >>> query.count(), query.where("formula = Fe4O6").count()
    (2, 1)
    >>> [document["formula_pretty"] for document in query.sort("ehull").best_of("chemsys")]
    ['Fe2O3']
    >>> query.sort("ehull").page(2, size=1).to_csv(sys.stdout, ["formula", "ehull"])
    formula_pretty,energy_above_hull [eV/atom]
    FeO,0.03
    """

    docs: Store
    data: Store
    condition: Condition = EVERYTHING
    order: Order = ()
    offset: int = 0
    max_size: int | None = None
    with_references: bool = True

    def __repr__(self) -> str:
        parts = [self.docs.name, str(to_criteria(self.condition))]
        parts += (
            [f"sorted by {', '.join(('-' if d < 0 else '') + name for name, d in self.order)}"] if self.order else []
        )
        parts += [f"from {self.offset}"] if self.offset else []
        parts += [f"at most {self.max_size}"] if self.max_size is not None else []
        return f"CandidateQuery({'; '.join(parts)})"

    def where(self, text: str) -> CandidateQuery:
        """
        Keep only documents that also meet a filter.

        Parameters
        ----------
        text
            Filter, such as ``"has Fe, O and ehull <= 50 meV"``; docs/queries.md describes the language.

        Raises
        ------
        MatrisError
            If the filter cannot be parsed. The message marks the position.
        """
        return self.meeting(parse_filter(text))

    def meeting(self, *conditions: Condition) -> CandidateQuery:
        """Keep only documents that also meet some conditions."""
        return replace(self, condition=And((self.condition, *conditions)) if conditions else self.condition)

    def sort(self, *fields: str) -> CandidateQuery:
        """
        Sort by fields. An earlier order is replaced.

        Documents without a value come last in both directions. Documents with equal values are sorted by id.

        Parameters
        ----------
        *fields
            Names of the fields; a leading ``-`` sorts in descending order.

        Raises
        ------
        MatrisError
            If there is no such field, or its values have no order.
        """
        order = []
        for text in fields:
            field = field_named(text.removeprefix("-"))
            if field.kind in {"group", "list", "anything"}:
                raise MatrisError(f"cannot sort by {field.name}: its values have no order")
            order.append((field.name, -1 if text.startswith("-") else 1))
        return replace(self, order=tuple(order))

    def limit(self, number: int) -> CandidateQuery:
        """Keep at most `number` documents."""
        return replace(self, max_size=_at_least(1, number, "limit"))

    def skip(self, number: int) -> CandidateQuery:
        """Skip the first `number` documents."""
        return replace(self, offset=_at_least(0, number, "skip"))

    def page(self, number: int, size: int) -> CandidateQuery:
        """Keep one page of `size` documents. The first page has number 1."""
        return self.skip((_at_least(1, number, "page") - 1) * size).limit(size)

    def __iter__(self) -> Iterator[Document]:
        """Yield documents as dictionaries, without structures and arrays."""
        return self._read()

    def documents(self) -> Iterator[CandidateDocument]:
        """Yield documents as validated models."""
        return (CandidateDocument.model_validate(document) for document in self)

    def first(self) -> Document | None:
        """Return the first document; None if there is none."""
        return next(iter(self if self.max_size == 0 else self.limit(1)), None)

    def count(self) -> int:
        """Count the documents."""
        n_matching: int = self.docs.count(to_criteria(self.condition) or _ALL)
        if not self.with_references:  # counted from an index; a filter for all other sources would read all documents
            n_matching -= self.n_references()
        n_after_offset = max(n_matching - self.offset, 0)
        return n_after_offset if self.max_size is None else min(n_after_offset, self.max_size)

    def n_references(self) -> int:
        """Count the documents that meet the condition, but only compete on the hulls of campaigns."""
        n_references: int = self.docs.count(to_criteria(And((_IS_REFERENCE, self.condition))))
        return n_references

    def origins(self) -> list[tuple[str, str]]:
        """
        List the checkpoints and settings of the documents that match, as pairs of key and digest of the settings.

        Documents of different checkpoints or settings describe the same candidates; they are not to be mixed.

        Examples
        --------
        >>> from tempfile import TemporaryDirectory
        >>> from matris.stores import CandidateStore
        >>> with TemporaryDirectory() as folder:
        ...     CandidateStore.open(folder).query().origins()  # the store is empty
        []
        """
        criteria = to_criteria(self.condition)  # with references: values are then read from indexes
        found = []
        for sha256 in self.docs.distinct("checkpoint.sha256", criteria):
            of_checkpoint = (
                {"$and": [criteria, {"checkpoint.sha256": sha256}]} if criteria else {"checkpoint.sha256": sha256}
            )
            for digest in self.docs.distinct("settings.digest", of_checkpoint):
                of_both = {"$and": [of_checkpoint, {"settings.digest": digest}]}
                of_both["$and"] += [own] if (own := self._criteria()) else []
                document = self.docs.query_one(of_both, properties=["checkpoint.key"])
                if document is not None:
                    found.append((document["checkpoint"]["key"], digest))
        return sorted(found)

    def ids(self) -> Iterator[str]:
        """Yield document ids."""
        return (document[KEY] for document in self._read([KEY]))

    def structures(self) -> Iterator[tuple[Document, Structure]]:
        """Yield documents with their relaxed structures. Documents without one are omitted."""
        for batch in batched(self, _STRUCTURES):
            criteria = {KEY: {"$in": [document[KEY] for document in batch]}}
            structures = {d[KEY]: d.get("structure") for d in self.data.query(criteria, properties=[KEY, "structure"])}
            for document in batch:
                if structure := structures.get(document[KEY]):
                    yield document, structure_of(document[KEY], structure)

    def entries(self) -> Iterator[ComputedStructureEntry]:
        """
        Yield pymatgen's entries, for its phase diagrams and other analyses.

        Documents without a relaxed structure or without a corrected energy are omitted. For the elements of a
        self-consistent hull, query with ``with_references=True``.

        Yields
        ------
        ComputedStructureEntry
            See `matris.stores.documents.entries.structure_entry`.
        """
        for document, structure in self.structures():
            if document.get("energy") is not None and document.get("energy_per_atom") is not None:
                yield structure_entry(document, structure)

    def best_by(self, group: str, field: str, *, largest: bool = False) -> list[Document]:
        """
        Find the best document of each group.

        Parameters
        ----------
        group
            Field whose values define the groups, such as ``"chemsys"``.
        field
            Field to compare. Documents without a value are left out.
        largest
            Whether the largest value is the best. By default the smallest is.

        Returns
        -------
        list of dict
            One document per group, the best first; of equal documents the one with the smallest id.
        """
        group, field = field_named(group).name, field_named(field).name
        best: dict[Any, tuple[Any, str]] = {}
        query = self.meeting(Not(Missing(group)), Not(Missing(field)))
        for document in query._read([KEY, group, field]):  # noqa: SLF001 - same class
            value = order_key(value_of(document, field))
            key = order_key(value_of(document, group))
            current = best.get(key)
            if current is None or (value != current[0] and (value > current[0]) == largest):
                best[key] = value, document[KEY]
            elif value == current[0]:
                best[key] = value, min(current[1], document[KEY])
        ranked = sorted(sorted(best.values(), key=lambda item: item[1]), key=lambda item: item[0], reverse=largest)
        by_id: dict[str, Document] = {}
        for batch in batched((key for _, key in ranked), _BATCH):
            by_id |= {d[KEY]: d for d in in_order(self.docs, {KEY: {"$in": list(batch)}})}
        return [by_id[key] for _, key in ranked if key in by_id]

    def best_of(self, group: str) -> CandidateQuery:
        """
        Keep only the best document of each group. The first sort field decides; call `sort` first.

        Parameters
        ----------
        group
            Field whose values define the groups, such as ``"chemsys"``.

        Raises
        ------
        MatrisError
            If the query has no sort field.
        """
        if not self.order:
            raise MatrisError("best_of() compares by the first sort field: call sort() first")
        field, direction = self.order[0]
        best = self.best_by(group, field, largest=direction < 0)
        return self.meeting(Among(KEY, tuple(document[KEY] for document in best)))

    def to_dataframe(self, columns: Sequence[str] | None = None) -> DataFrame:
        """
        Return a pandas table with one row per document.

        Parameters
        ----------
        columns
            Dotted names of fields; a group stands for the fields in it. By default all fields of the document model
            and all further fields of these documents.

        Raises
        ------
        MatrisError
            If there is no such field.
        """
        import pandas as pd

        if columns is not None:
            names = expanded(columns)
            return pd.DataFrame([[value_of(d, n) for n in names] for d in self._read(names)], columns=names)
        rows = [dict(flat(document)) for document in self]
        names = [leaf for name in CandidateDocument.model_fields for leaf in leaves(name)]
        groups = {name for name in names if field_named(name).kind == "group"}
        further = sorted({name for row in rows for name in row if name.rpartition(".")[0]} - set(names))
        return pd.DataFrame(rows, columns=[name for name in names if name not in groups] + further)

    def to_csv(self, target: str | Path | TextIO, columns: Sequence[str] = COLUMNS) -> None:
        """
        Write a table as CSV; the headings have the units in square brackets.

        Parameters
        ----------
        target
            Open stream, or a file, which appears under its name only when it is complete.
        columns
            Dotted names of fields; a group stands for the fields in it.

        Raises
        ------
        MatrisError
            If there is no such field.
        OSError
            If the file cannot be written.
        """
        names = expanded(columns)
        write_csv(self._read(names), target, names, [heading(name) for name in names])

    def to_jsonl(self, target: str | Path | TextIO) -> None:
        """Write complete documents as JSON, one per line; `target` as in `to_csv`."""
        write_jsonl(self, target)

    def _criteria(self) -> dict[str, Any]:
        criteria = to_criteria(self.condition)
        if self.with_references:
            return criteria
        own = {"source": {"$nin": list(_IS_REFERENCE.values)}}
        is_flat = not any(name == "source" or name.startswith("$") for name in criteria)
        return criteria | own if is_flat else {"$and": [criteria, own]}

    def _read(self, names: Sequence[str] | None = None) -> Iterator[Document]:
        return in_order(self.docs, self._criteria(), self.order, self.offset, self.max_size, names)


def side_by_side(one: CandidateQuery, other: CandidateQuery) -> Iterator[tuple[Document, Document]]:
    """
    Yield pairs of documents of the same candidate, for example computed by two checkpoints.

    Parameters
    ----------
    one, other
        Queries that give the first and the second document of each pair. The pairs are in the order of `one`.
        Candidates that only one of the queries has are omitted. If `other` has several documents of a candidate, each
        gives a pair. A window of `other` is ignored.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from matris.stores import CandidateStore
    >>> with TemporaryDirectory() as folder:
    ...     store = CandidateStore.open(folder)  # empty
    ...     list(side_by_side(store.query(checkpoint="matris_10m_oam"), store.query(checkpoint="matris_10m_omat")))
    []
    """
    other = replace(other, offset=0, max_size=None)
    for batch in batched(one, _BATCH):
        matches: dict[str, list[Document]] = defaultdict(list)
        for document in other.meeting(Among("candidate_id", tuple({d["candidate_id"] for d in batch}))):
            matches[document["candidate_id"]].append(document)
        yield from ((document, match) for document in batch for match in matches[document["candidate_id"]])


def _at_least(lowest: int, number: int, name: str) -> int:
    if number < lowest:
        raise MatrisError(f"{name} is {number}, but must be at least {lowest}")
    return number
