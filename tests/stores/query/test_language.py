"""Filter language: parsed conditions, errors and their positions, and the answers of the stores."""

import math
import random
import uuid
from datetime import datetime, timedelta
from operator import eq, ge, gt, le, lt, ne

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jobflow import JobStore
from maggma.stores import MemoryStore

from matris.errors import MatrisError
from matris.stores.candidate_store import CandidateStore
from matris.stores.database.jobstore import open_job_store
from matris.stores.documents.fields import field_named, value_of
from matris.stores.query.conditions import (
    Among,
    And,
    Comparison,
    Contains,
    Has,
    Missing,
    Not,
    Only,
    Or,
    to_criteria,
)
from matris.stores.query.language import parse_filter

NOW = datetime(2026, 11, 23, 15, 30)  # noqa: DTZ001 - documents hold naive UTC
DAY = timedelta(days=1)
TODAY = NOW.replace(hour=0, minute=0)


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    monkeypatch.setattr("matris.stores.query.values.utc_now", lambda: NOW)


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("has Fe, O", Has(("Fe", "O"))),
        ("elements has Fe and elements only Fe,O", And((Has(("Fe",)), Only(("Fe", "O"))))),
        ("ehull <= 50 meV", Comparison("energy_above_hull", "<=", 0.05)),
        ("e_hull <= 50meV", Comparison("energy_above_hull", "<=", 0.05)),
        ("energy_above_hull > -1e-3 eV/atom", Comparison("energy_above_hull", ">", -1e-3)),
        ("nsites >= 8", Comparison("nsites", ">=", 8)),
        ("stable", Comparison("is_stable", "=", value=True)),
        ("is_stable = no", Comparison("is_stable", "=", value=False)),
        ("NOT stable", Not(Comparison("is_stable", "=", value=True))),
        ("state != failed", Not(Comparison("state", "=", "failed"))),
        ("state == 'failed'", Comparison("state", "=", "failed")),
        ("state in (failed, rejected)", Among("state", ("failed", "rejected"))),
        ("state not in (failed)", Not(Among("state", ("failed",)))),
        ("formula = O6Fe4", Comparison("formula_pretty", "=", "Fe2O3")),
        ('formula = "Fe2(SO4)3"', Comparison("formula_pretty", "=", "Fe2(SO4)3")),
        ("chemsys in (Li-Fe-O, O-Fe)", Among("chemsys", ("Fe-Li-O", "Fe-O"))),
        ("spacegroup = Fm-3m", Comparison("symmetry.number", "=", 225)),
        ("spacegroup = P21/c", Comparison("symmetry.number", "=", 14)),
        ("spacegroup >= 195", Comparison("symmetry.number", ">=", 195)),
        ("crystal_system = cubic", Comparison("symmetry.crystal_system", "=", "Cubic")),
        ('reason contains "out of memory"', Contains("error", "out of memory")),
        ("symmetry is missing", Missing("symmetry")),
        ("symmetry is known", Not(Missing("symmetry"))),
        ("ehull is not missing", Not(Missing("energy_above_hull"))),
        ("is_stable is false", Comparison("is_stable", "=", value=False)),
        ("provenance.steps = 3", Comparison("provenance.steps", "=", 3)),
        ("provenance.note = '3'", Comparison("provenance.note", "=", "3")),
        ("provenance.flag", Comparison("provenance.flag", "=", value=True)),
        (
            "stable or nsites < 3 and nsites > 1",
            Or(
                (
                    Comparison("is_stable", "=", value=True),
                    And((Comparison("nsites", "<", 3), Comparison("nsites", ">", 1))),
                )
            ),
        ),
        (
            "(stable or nsites < 3) and nsites > 1",
            And(
                (
                    Or((Comparison("is_stable", "=", value=True), Comparison("nsites", "<", 3))),
                    Comparison("nsites", ">", 1),
                )
            ),
        ),
        ("updated >= yesterday", Comparison("last_updated", ">=", TODAY - DAY)),
        ("updated < today", Comparison("last_updated", "<", TODAY)),
        ("updated <= 2026-11-20", Comparison("last_updated", "<", TODAY - 2 * DAY)),
        ("updated > 2026-11-20", Comparison("last_updated", ">=", TODAY - 2 * DAY)),
        ("updated > 3 days ago and stable", And((
            Comparison("last_updated", ">", NOW - 3 * DAY), Comparison("is_stable", "=", value=True)))),
        ("updated > '2 weeks ago'", Comparison("last_updated", ">", NOW - 14 * DAY)),
        ("updated >= 2026-11-23 15:30", Comparison("last_updated", ">=", NOW)),
        ("updated >= 2026-11-23T17:30+02:00", Comparison("last_updated", ">=", NOW)),
        ("updated = yesterday", And((
            Comparison("last_updated", ">=", TODAY - DAY), Comparison("last_updated", "<", TODAY)))),
    ],
)  # fmt: skip
def test_filters_are_parsed(text, condition):
    assert parse_filter(text) == condition


@pytest.mark.parametrize(
    ("text", "position", "expected"),
    [
        ("", 0, "expected a field"),
        ("   ", 3, "expected a field"),
        ("stat = failed", 0, "did you mean state"),
        ("ehull", 5, "expected = != < <= > >="),
        ("ehull <", 7, "a number, such as 0.05 or 50 meV"),
        ("ehull < fifty", 8, "expected a number"),
        ("ehull < 5 GPa", 10, "in eV/atom"),
        ("nsites < 5 eV", 11, "has no unit"),
        ("state = convergd", 8, "expected one of converged"),
        ("state < failed", 6, "expected = or !="),
        ("stable = maybe", 9, "true or false"),
        ("stable and has Xx", 15, "no element 'Xx'"),
        ("has", 3, "expected an element"),
        ("formula = Qq9", 10, "cannot read the formula"),
        ("chemsys = Fe-Qq", 10, "no element 'Qq'"),
        ("spacegroup = Xm", 13, "no space group 'Xm'"),
        ("spacegroup = 231", 13, None),
        ("elements = Fe", 9, "'has', 'only'"),
        ("symmetry = 3", 0, "group of fields"),
        ("symmetry is 3", 12, "'missing' or 'known'"),
        ("updated > soon", 10, "expected a date"),
        ("updated > 2026-13-40", 10, "expected a date"),
        ("updated > 99999999999 weeks ago", 10, "expected a date"),
        ("error contains out of memory", 19, "quotes"),
        ("formula = Fe2(SO4)3", 13, "quotes"),
        ("(stable", 7, "expected )"),
        ("stable)", 6, "expected 'and', 'or' or the end"),
        ("state in failed", 9, "expected ("),
        ("state in (failed,", 17, "expected a text"),
        ("provenance.x in (1, a)", 17, "one kind"),
        ("stable and and stable", 11, "expected a field"),
        ("state = 'failed", 8, "quote is not closed"),
        ("ehull ! 3", 6, "unexpected sign"),
        ("provenance.$where = 1", 0, "no field"),
        ("stable\0", 6, "unexpected sign"),
        ("(" * 500 + "stable" + ")" * 500, 50, "more than 50 nested brackets"),
        ("not " * 500 + "stable", 200, "more than 50 nested brackets"),
    ],
)
def test_errors_mark_the_position(text, position, expected):
    if expected is None:  # any number is valid, although no space group has this one
        assert parse_filter(text) == Comparison("symmetry.number", "=", 231)
        return
    with pytest.raises(MatrisError) as raised:
        parse_filter(text)
    message, shown, marks = str(raised.value).split("\n")
    assert expected in message
    assert shown == "  " + text.replace("\0", "\0")
    assert marks.index("^") - 2 == position


def test_a_deep_field_is_found_by_its_last_name():
    with pytest.raises(MatrisError, match=r"did you mean symmetry\.number"):
        field_named("number")
    with pytest.raises(MatrisError, match="energy_above_hull"):
        field_named("energy_above_hul")


def test_units_come_from_the_descriptions():
    assert field_named("energy_above_hull").unit == "eV/atom"
    assert field_named("volume").unit == "Å³"
    assert field_named("nsites").unit is None
    assert field_named("elastic.bulk_modulus").unit == "GPa"
    assert field_named("phonon.min_frequency").unit == "THz"
    assert parse_filter("elastic.bulk_modulus > 1000 kbar") == Comparison("elastic.bulk_modulus", ">", 100)


def test_conditions_on_one_field_become_a_range():
    condition = parse_filter("ehull > 0 and ehull <= 0.1 and state = converged")
    assert to_criteria(condition) == {"energy_above_hull": {"$gt": 0, "$lte": 0.1}, "state": "converged"}


ELEMENTS = ["Li", "Fe", "Co", "O", "F"]
STATES = ["converged", "max_steps", "failed", "rejected"]
NUMBERS = [-0.2, 0, 0.05, 0.1, 3]
MOMENTS = [NOW - i * DAY for i in range(5)]


def maybe(rng, values):
    return rng.choice([*values, None])


def random_document(rng, i):
    elements = sorted(rng.sample(ELEMENTS, rng.randint(0, 4)))
    document = {
        "document_id": f"d{i:03}",
        "state": rng.choice(STATES),
        "error": maybe(rng, ["Out of memory", "overlapping atoms (0.1 Å)", ""]),
        "elements": elements,
        "nelements": len(elements),
        "chemsys": "-".join(elements) or None,
        "energy_above_hull": maybe(rng, [*NUMBERS, math.nan]),
        "is_stable": maybe(rng, [True, False]),
        "symmetry": maybe(rng, [{"number": 225, "symbol": "Fm-3m"}, {"number": 14}, {}]),
        "phonon": maybe(rng, [{"has_imaginary_modes": True}, {"has_imaginary_modes": False}, {}]),
        "provenance": rng.choice([{}, {"x": 3}, {"x": "3"}, {"x": None}]),
        "last_updated": maybe(rng, MOMENTS),
    }
    return {name: value for name, value in document.items() if name == "document_id" or rng.random() < 0.9}


def random_filter(rng, depth=3):
    if depth and rng.random() < 0.6:
        parts = [random_filter(rng, depth - 1) for _ in range(rng.randint(1, 3))]
        word = rng.choice([" and ", " or "])
        return rng.choice(["", "not "]) + f"({word.join(parts)})"
    symbols = ", ".join(rng.sample(ELEMENTS, rng.randint(1, 3)))
    number, relation = rng.choice(NUMBERS), rng.choice(["=", "!=", "<", "<=", ">", ">="])
    return rng.choice(
        [
            f"has {symbols}",
            f"only {symbols}",
            "elements only Li, Fe, Co, O, F, N, C, H, B",
            f"ehull {relation} {number}",
            f"ehull in ({number}, 0.05)",
            f"state {rng.choice(['=', '!='])} {rng.choice(STATES)}",
            "state not in (failed, rejected)",
            f"updated {relation} {rng.choice(['yesterday', '2026-11-20', '2 days ago'])}",
            f"reason {rng.choice(['contains', '=', '!='])} '{rng.choice(['memory', 'OVERLAPPING', '(0.1', ''])}'",
            f"{rng.choice(FIELDS)} is {rng.choice(['missing', 'known'])}",
            f"symmetry.number {relation} 14",
            "stable",
            "phonon.has_imaginary_modes",
            "chemsys in (Fe-O, Li)",
            "provenance.x = 3",
            "provenance.x != '3'",
        ]
    )


FIELDS = ["ehull", "error", "elements", "symmetry", "phonon", "symmetry.number", "is_stable", "provenance.x", "updated"]


COMPARE = {"=": eq, "!=": ne, "<": lt, "<=": le, ">": gt, ">=": ge}


def truth(condition, document):
    """Three-valued truth of a condition by the definition of the language; None means unknown."""
    match condition:
        case Not(part):
            part_truth = truth(part, document)
            return None if part_truth is None else not part_truth
        case And(parts) | Or(parts):
            decides = isinstance(condition, Or)
            truths = [truth(part, document) for part in parts]
            return decides if decides in truths else None if None in truths else not decides
        case Has(symbols):
            return set(symbols) <= set(document["elements"]) if document.get("elements") else None
        case Only(symbols):
            return set(document["elements"]) <= set(symbols) if document.get("elements") else None
    value = value_of(document, condition.field)
    missing = value in (None, [], {}) or (isinstance(value, float) and math.isnan(value))
    if isinstance(condition, Missing):
        return missing
    return None if missing else said(condition, value)


def said(condition, value):
    """Truth of a condition for a value; None if the value has another type."""
    other = {Comparison: "value", Contains: "text", Among: "values"}[type(condition)]
    other = getattr(condition, other)
    if isinstance(value, str) != isinstance(other[0] if isinstance(other, tuple) else other, str):
        return None
    match condition:
        case Contains(_, text):
            return text.lower() in value.lower()
        case Among(_, values):
            return value in values
    return COMPARE[condition.relation](value, other)


@pytest.fixture(scope="module", params=["sqlite", "memory", "server"])
def store(request, tmp_path_factory):
    if request.param == "memory":
        jobs = JobStore(MemoryStore(), additional_stores={"data": MemoryStore()})
        jobs.connect()
    elif request.param == "sqlite":
        jobs = open_job_store(tmp_path_factory.mktemp("store"))
    else:
        jobs = open_job_store(f"{request.getfixturevalue('mongo_server')}/filters-{uuid.uuid4().hex[:8]}")
    yield CandidateStore.beside(jobs)
    jobs.close()


def test_stores_answer_according_to_the_definition(store):
    rng = random.Random(5)
    documents = [random_document(rng, i) for i in range(50)]
    for document in documents:  # as the document model guarantees
        document["nelements"] = len(document.get("elements", []))
        document["chemsys"] = "-".join(document.get("elements", [])) or None
    store.docs.update(documents)
    answers = set()
    for _ in range(150):
        text = random_filter(rng)
        expected = [d["document_id"] for d in documents if truth(parse_filter(text), d)]
        query = store.query().where(text)
        assert sorted(query.ids()) == expected, text
        answers.add(len(expected))
    assert len(answers) > 20  # the filters distinguish documents


def test_unknown_is_not_no(store):
    store.docs.remove_docs({})
    store.docs.update(
        [
            {"document_id": "no", "phonon": {"has_imaginary_modes": False}},
            {"document_id": "yes", "phonon": {"has_imaginary_modes": True}},
            {"document_id": "failed", "phonon": {"has_imaginary_modes": None}},
            {"document_id": "not computed", "phonon": None},
            {"document_id": "old"},
        ]
    )
    assert list(store.query().where("not phonon.has_imaginary_modes").ids()) == ["no"]
    assert list(store.query().where("phonon.has_imaginary_modes != true").ids()) == ["no"]
    either = "not phonon.has_imaginary_modes or phonon.has_imaginary_modes is missing"
    assert set(store.query().where(either).ids()) == {"no", "failed", "not computed", "old"}


WORDS = [
    "ehull", "formula", "has", "only", "Fe", "and", "or", "not", "in", "(", ")", ",", "=", "!=", "<=", ">", "50", "meV",
    "1e999", "-", "nan", "inf", "state", "converged", "is", "missing", "known", "contains", "'", '"', "elastic.x",
    "$where", "\0", "checkpoint", "updated", "2026-01-01", "7 days", "9" * 400, "symmetry.number",
]  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.one_of(st.text(max_size=40), st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)))
def test_any_text_is_a_filter_or_an_error_that_marks_its_place(text):
    try:
        criteria = to_criteria(parse_filter(text))
    except MatrisError as refused:
        message = str(refused)
    else:
        message = None
    if message is not None:
        assert message.rstrip("^").endswith(("\n", " "))
        assert message.endswith("^")
        return
    assert not {name for name in flat_names(criteria) if name.startswith("$")} - KNOWN_OPERATORS


KNOWN_OPERATORS = {
    "$and", "$or", "$nor", "$not", "$eq", "$ne", "$lt", "$lte", "$gt", "$gte", "$in", "$nin", "$exists", "$type",
    "$regex", "$options", "$all", "$elemMatch", "$size",
}  # fmt: skip


def flat_names(criteria):
    if isinstance(criteria, dict):
        return [*criteria, *(name for part in criteria.values() for name in flat_names(part))]
    return [name for part in criteria for name in flat_names(part)] if isinstance(criteria, list) else []
