"""Sources as a user types them: ``structures/``, ``campaign?ehull < 50 meV``, ``prototypes:Li-Fe-O``."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pymatgen.core.periodic_table import Element
from pymongo.errors import PyMongoError
from pymongo.uri_parser import parse_uri

from matris.errors import MatrisError
from matris.flows.sources.files import read_candidates
from matris.nearest import did_you_mean
from matris.stores.database import DATABASE_FILE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matris.stores.documents.candidate import Candidate

type Reader = Callable[[str], Any]
type Options = dict[str, Any]
type Generator = Callable[[str, Options], Iterator[Candidate]]

_MONGODB = ("mongodb://", "mongodb+srv://")


def open_source(text: str) -> Iterator[Candidate]:
    """
    Read or generate candidates one by one, from a source as users type it.

    Parameters
    ----------
    text
        A structure file or a folder of structure files; a folder of results or a MongoDB URI, with ``?FILTER`` in the
        language of ``matris query``; or ``GENERATOR:SOURCE?OPTION=VALUE&OPTION=VALUE``, where SOURCE may be any of
        these. The options belong to the first generator; docs/sources.md lists them. An existing file or folder of
        exactly this name takes precedence.

    Raises
    ------
    MatrisError
        If there is no such file, generator or option, a value cannot be read, or a filter is wrong.

    Examples
    --------
    >>> for candidate in open_source("prototypes:Na-Cl?max_sites=2&limit=4"):
    ...     print(candidate.structure.formula, candidate.provenance["aflow"])
    Na1 A_cF4_225_a
    Na1 A_cI2_229_a
    Na2 A_hP2_194_c
    Na1 Cl1 AB_cF8_225_a_b
    """
    kind, colon, rest = text.partition(":")
    if text.startswith(_MONGODB):
        return _results(*_split_uri(text))
    if Path(text).exists():
        return _results(text, "") if _holds_results(text) else read_candidates(text)
    if colon and kind in _GENERATORS:
        generate, readers = _GENERATORS[kind]
        inner, _, options = rest.rpartition("?") if "?" in rest else (rest, "", "")
        return generate(inner, _options(kind, options, readers))
    base, question, condition = text.partition("?")
    if question and _holds_results(base):
        return _results(base, condition)
    if kind == _COMPOSITIONS:
        raise MatrisError(f"{text} gives formulas, and no crystals: write random:{text}?count=20")
    if colon and re.fullmatch(r"[a-z]+", kind):
        raise MatrisError(f"there is no generator {kind!r}, and no file {text!r}{did_you_mean(kind, _GENERATORS)}")
    return read_candidates(text)


def chemical_system_of(text: str) -> str | None:
    """
    Return the chemical system that a source fills with candidates; None if its elements are known only when it is read.

    Examples
    --------
    >>> chemical_system_of("prototypes:Na-Cl?max_sites=2"), chemical_system_of("structures/")
    ('Na-Cl', None)
    >>> chemical_system_of("random:Li2O,TiO2?count=5"), chemical_system_of("random:compositions:Li-O")
    ('Li-O-Ti', 'Li-O')
    """
    kind, colon, rest = text.partition(":")
    if not colon or kind not in {"prototypes", "random"} or Path(text).exists():
        return None
    inner = rest.removeprefix(f"{_COMPOSITIONS}:").partition("?")[0]
    return (
        inner
        if kind == "prototypes" or inner != rest.partition("?")[0]
        else "-".join(sorted({name for name in re.findall(r"[A-Z][a-z]?", inner) if Element.is_valid_symbol(name)}))
    )


def _holds_results(folder: str) -> bool:
    return Path(folder).is_dir() and (Path(folder) / DATABASE_FILE).is_file()


def _results(location: str, condition: str) -> Iterator[Candidate]:
    from matris.flows.sources.results import relaxed_candidates
    from matris.stores.candidate_store import CandidateStore

    query = CandidateStore.open(location).query()
    return relaxed_candidates(query.where(condition) if condition.strip() else query)


def _split_uri(text: str) -> tuple[str, str]:
    """Split a filter from a MongoDB URI; a question mark may also begin options of the URI."""
    base, *parts = text.split("?", 2)
    if parts:
        try:
            parse_uri(f"mongodb://localhost/?{parts[0]}")
        except (ValueError, PyMongoError):
            pass
        else:
            return f"{base}?{parts[0]}", "?".join(parts[1:])
    return base, "?".join(parts)


def _options(kind: str, text: str, readers: dict[str, Reader]) -> Options:
    """Parse ``a=1&b=2``; names that are elements are collected in ``mapping``."""
    options: Options = {}
    for word in filter(None, text.split("&")):
        name, _, value = (part.strip() for part in word.partition("="))
        if "mapping" in readers and Element.is_valid_symbol(name.capitalize()) and name not in readers:
            options.setdefault("mapping", {})[name] = readers["mapping"](value)
        elif name not in readers or name == "mapping":
            names = [each if each != "mapping" else "ELEMENT=ELEMENT,ELEMENT" for each in readers]
            raise MatrisError(f"{kind} has no option {name!r}{did_you_mean(name, names)}")
        else:
            try:
                options[name] = readers[name](value)
            except ValueError:
                raise MatrisError(f"{kind}: cannot read {name}={value}, expected {_EXPECTED[readers[name]]}") from None
    return options


def _names(text: str) -> list[str]:
    return [name.strip() for name in re.split("[,-]", text) if name.strip()]


def _range(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    return int(first), int(last or first)


_EXPECTED: dict[Reader, str] = {
    int: "a whole number",
    float: "a number",
    str: "a word",
    _names: "elements as Li,Fe,O",
    _range: "a range as 1-4",
}


def _first(candidates: Iterator[Candidate], limit: int | None) -> Iterator[Candidate]:
    if limit is not None and limit < 1:
        raise MatrisError(f"limit is {limit}, and must be at least 1")
    return islice(candidates, limit)


def _prototypes(chemsys: str, options: Options) -> Iterator[Candidate]:
    from matris.flows.sources.prototypes import generate_candidates

    limit = options.pop("limit", None)
    return _first(generate_candidates(chemsys, **options), limit)


def _substitute(source: str, options: Options) -> Iterator[Candidate]:
    from matris.flows.sources.substitution import substitute_ions

    limit = options.pop("limit", None)
    return _first(substitute_ions(open_source(source), **options), limit)


def _swap(source: str, options: Options) -> Iterator[Candidate]:
    from matris.flows.sources.swap import swap_elements

    limit = options.pop("limit", None)
    mapping, rule = options.pop("mapping", None), options.pop("by", None)
    if (mapping is None) == (rule is None):
        raise MatrisError("swap needs either elements, as swap:FILE?Fe=Co,Ni, or a rule, as swap:FILE?by=group")
    return _first(swap_elements(open_source(source), mapping or rule, **options), limit)


def _rattle(source: str, options: Options) -> Iterator[Candidate]:
    from matris.flows.sources.rattle import rattle

    limit = options.pop("limit", None)
    return _first(rattle(open_source(source), **options), limit)


def _random(source: str, options: Options) -> Iterator[Candidate]:
    from matris.flows.sources.random_search import formulas_of, random_crystals

    limit = options.pop("limit", None)
    kind, colon, rest = source.partition(":")
    formulas = _compositions(rest) if colon and kind == _COMPOSITIONS else formulas_of(source)
    return _first(random_crystals(formulas, **options), limit)


def _compositions(text: str) -> list[str]:
    from matris.flows.sources.compositions import charge_balanced

    chemsys, _, options = text.partition("?")
    return charge_balanced(chemsys, **_options(_COMPOSITIONS, options, {"max_amount": int}))


_COMPOSITIONS = "compositions"

_GENERATORS: dict[str, tuple[Generator, dict[str, Reader]]] = {
    "prototypes": (_prototypes, {"max_sites": int, "per_formula": int, "limit": int}),
    "substitute": (_substitute, {"threshold": float, "only": _names, "limit": int}),
    "swap": (_swap, {"mapping": _names, "by": str, "at_once": int, "only": _names, "limit": int}),
    "random": (_random, {"count": int, "sizes": _range, "seed": int, "limit": int}),
    "rattle": (_rattle, {"n": int, "amplitude": float, "strain": float, "seed": int, "limit": int}),
}
"""Function and option parsers of each generator."""
