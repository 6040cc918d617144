"""A question to the candidates: made step by step, asked when it is read, answered one document at a time."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from itertools import batched
from typing import TYPE_CHECKING, Any, TextIO

from pymatgen.core.structure import Structure

from matris.errors import MatrisError
from matris.stores.database.sqlite.filters import order_key
from matris.stores.documents.documents import CandidateDocument
from matris.stores.documents.fields import field_named, leaves, value_of
from matris.stores.query.conditions import EVERYTHING, Among, And, Missing, Not, to_criteria
from matris.stores.query.language import parse_filter
from matris.stores.query.order import KEY, in_order
from matris.stores.query.tables import COLUMNS, expanded, flat, write_csv, write_jsonl

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from maggma.core import Store
    from pandas import DataFrame

    from matris.stores.query.conditions import Condition
    from matris.stores.query.order import Order

type Document = dict[str, Any]

_ALL = {"_id": {"$exists": True}}  # an empty filter is counted by a server's estimate
_BATCH = 1000  # ids in one query
_STRUCTURES = 100  # crystals read at once


@dataclass(frozen=True)
class CandidateQuery:
    """
    Documents of candidates that meet a condition; made by `matris.stores.CandidateStore.query`.

    Every method gives a new query or an answer and changes nothing. The store is asked anew for each answer.

    Attributes
    ----------
    docs, data
        Stores of the documents, and of their structures and arrays.
    condition
        What documents meet.
    order
        Fields to sort by, each with 1 or -1.
    skipped, most
        Window of the documents in this order; None: all.
    """

    docs: Store
    data: Store
    condition: Condition = EVERYTHING
    order: Order = ()
    skipped: int = 0
    most: int | None = None

    def where(self, text: str) -> CandidateQuery:
        """
        Keep documents that meet a filter too.

        Parameters
        ----------
        text
            Such as ``"has Fe, O and ehull <= 50 meV"``; docs/queries.md has the language.

        Raises
        ------
        MatrisError
            If it cannot be read; shows where.
        """
        return self.meeting(parse_filter(text))

    def meeting(self, *conditions: Condition) -> CandidateQuery:
        """Keep documents that meet some conditions too."""
        return replace(self, condition=And((self.condition, *conditions)) if conditions else self.condition)

    def sort(self, *fields: str) -> CandidateQuery:
        """
        Sort by fields, in place of any order given before.

        Documents without the field come last, those equal in all by their ids.

        Parameters
        ----------
        *fields
            Names, with a leading ``-`` for the largest first.

        Raises
        ------
        MatrisError
            If there is no such field, or it has no order.
        """
        order = []
        for text in fields:
            field = field_named(text.removeprefix("-"))
            if field.kind in {"group", "list", "anything"}:
                raise MatrisError(f"cannot sort by {field.name}: its values have no order")
            order.append((field.name, -1 if text.startswith("-") else 1))
        return replace(self, order=tuple(order))

    def limit(self, number: int) -> CandidateQuery:
        """Keep at most so many documents."""
        return replace(self, most=_at_least(1, number, "limit"))

    def skip(self, number: int) -> CandidateQuery:
        """Leave out so many documents at the start."""
        return replace(self, skipped=_at_least(0, number, "skip"))

    def page(self, number: int, size: int) -> CandidateQuery:
        """Keep one page of some size; the first is number 1."""
        return self.skip((_at_least(1, number, "page") - 1) * size).limit(size)

    def __iter__(self) -> Iterator[Document]:
        """Yield documents as they are stored, without arrays."""
        return self._read()

    def documents(self) -> Iterator[CandidateDocument]:
        """Yield documents with attributes, validated."""
        return (CandidateDocument.model_validate(document) for document in self)

    def first(self) -> Document | None:
        """Give the first document, or None."""
        return next(iter(self if self.most == 0 else self.limit(1)), None)

    def count(self) -> int:
        """Count the documents."""
        found: int = self.docs.count(to_criteria(self.condition) or _ALL)
        left = max(found - self.skipped, 0)
        return left if self.most is None else min(left, self.most)

    def ids(self) -> Iterator[str]:
        """Yield document ids."""
        return (document[KEY] for document in self._read([KEY]))

    def structures(self) -> Iterator[tuple[Document, Structure]]:
        """Yield documents with their relaxed crystals, without those that have none."""
        for batch in batched(self, _STRUCTURES):
            criteria = {KEY: {"$in": [document[KEY] for document in batch]}}
            found = {d[KEY]: d.get("structure") for d in self.data.query(criteria, properties=[KEY, "structure"])}
            for document in batch:
                if known := found.get(document[KEY]):
                    yield document, Structure.from_dict(known)

    def best_by(self, group: str, field: str, *, largest: bool = False) -> list[Document]:
        """
        Find the best document of each group.

        Parameters
        ----------
        group
            Field whose values make the groups, such as ``"chemsys"``.
        field
            What is compared. Documents without it take no part.
        largest
            Whether the largest value is best, not the smallest.

        Returns
        -------
        list of dict
            The best first; of equals the one with the smallest id.
        """
        group, field = field_named(group).name, field_named(field).name
        best: dict[Any, tuple[Any, str]] = {}
        query = self.meeting(Not(Missing(group)), Not(Missing(field)))
        for document in query._read([KEY, group, field]):  # noqa: SLF001 - its own kind
            value = order_key(value_of(document, field))
            place = order_key(value_of(document, group))
            held = best.get(place)
            if held is None or (value != held[0] and (value > held[0]) == largest):
                best[place] = value, document[KEY]
            elif value == held[0]:
                best[place] = value, min(held[1], document[KEY])
        ranked = sorted(sorted(best.values(), key=lambda item: item[1]), key=lambda item: item[0], reverse=largest)
        found: dict[str, Document] = {}
        for batch in batched((key for _, key in ranked), _BATCH):
            found |= {d[KEY]: d for d in in_order(self.docs, {KEY: {"$in": list(batch)}})}
        return [found[key] for _, key in ranked if key in found]

    def best_of(self, group: str) -> CandidateQuery:
        """Keep the document that comes first, by the first field of the order, in each group."""
        if not self.order:
            raise MatrisError("what is best has to be said by sort() first")
        field, way = self.order[0]
        best = self.best_by(group, field, largest=way < 0)
        return self.meeting(Among(KEY, tuple(document[KEY] for document in best)))

    def to_dataframe(self, columns: Sequence[str] | None = None) -> DataFrame:
        """
        Give a table of pandas, one row a document.

        Parameters
        ----------
        columns
            Dotted names; a group of fields stands for those in it. By default all fields that documents may have, and
            what else these documents hold.

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
        more = sorted({name for row in rows for name in row if name.rpartition(".")[0]} - set(names))
        return pd.DataFrame(rows, columns=[name for name in names if name not in groups] + more)

    def to_csv(self, target: str | Path | TextIO, columns: Sequence[str] = COLUMNS) -> None:
        """
        Write a table as CSV.

        Parameters
        ----------
        target
            A file, which appears when it is complete, or an open stream.
        columns
            As for `to_dataframe`.

        Raises
        ------
        MatrisError
            If there is no such field.
        OSError
            If the file cannot be written.
        """
        names = expanded(columns)
        write_csv(self._read(names), target, names)

    def to_jsonl(self, target: str | Path | TextIO) -> None:
        """Write whole documents as JSON, one a line; `target` as for `to_csv`."""
        write_jsonl(self, target)

    def _read(self, names: Sequence[str] | None = None) -> Iterator[Document]:
        criteria = to_criteria(self.condition)
        return in_order(self.docs, criteria, self.order, self.skipped, self.most, names)


def side_by_side(one: CandidateQuery, other: CandidateQuery) -> Iterator[tuple[Document, Document]]:
    """
    Yield pairs of documents of the same candidate, such as by two checkpoints.

    Parameters
    ----------
    one, other
        Where the first and the second of each pair come from, in the order of `one`. A candidate that one of them
        lacks is left out; if `other` has several documents of it, each makes a pair. A window of `other` is ignored.
    """
    other = replace(other, skipped=0, most=None)
    for batch in batched(one, _BATCH):
        same: dict[str, list[Document]] = defaultdict(list)
        for document in other.meeting(Among("candidate_id", tuple({d["candidate_id"] for d in batch}))):
            same[document["candidate_id"]].append(document)
        yield from ((document, match) for document in batch for match in same[document["candidate_id"]])


def _at_least(least: int, number: int, name: str) -> int:
    if number < least:
        raise MatrisError(f"{name} is {number}, and must be at least {least}")
    return number
