import pytest
from pymatgen.core import Lattice, Structure

from matris.errors import MatrisError
from matris.stores.documents.candidate import ELEMENTAL_REFERENCE_SOURCE, Candidate
from matris.stores.report.discovery import Discovery, KnownCrystals, discovery, energy_histogram


def salt(anion, a=5.6):
    faces = [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
    return Structure(Lattice.cubic(a), ["Na"] * 4 + [anion] * 4, faces + [[x + 0.5, y, z] for x, y, z in faces])


def document(name, formula, distance, state="converged", **more):
    return {
        "document_id": f"{name}-1",
        "candidate_id": name,
        "source": "test",
        "state": state,
        "formula_pretty": formula,
        "energy_above_hull": distance,
        "energy_per_atom": None if distance is None else distance - 3,
        **more,
    }


STRUCTURES = {
    "a-1": salt("Cl"),
    "b-1": salt("Cl", 5.7),
    "c-1": salt("Br"),
    "d-1": salt("F", 4.6),
    "e-1": Structure(Lattice.cubic(3.5), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
}
DOCUMENTS = [
    document("a", "NaCl", 0.0),
    document("b", "NaCl", 0.004),
    document("c", "NaBr", 0.0),
    document("d", "NaF", -0.01),
    document("e", "NaCl", 0.03),
    document("f", "NaI", None, state="failed"),
    document("g", "NaI", None, state="rejected"),
    document("h", "NaCl", None, state="duplicate", duplicate_of="a"),
    document("r", "Na", 0.0, source=ELEMENTAL_REFERENCE_SOURCE),
]


def test_stable_unique_and_novel_are_counted():
    counts = discovery(DOCUMENTS, STRUCTURES.get, [salt("Br", 6.0), salt("I")])
    assert counts == Discovery(
        n_candidates=8,
        n_converged=5,
        n_stable=3,
        n_unique=4,
        n_novel=3,
        sun=("d", "a"),
        histogram={-0.025: 1, 0.0: 3, 0.025: 1},
        known=KnownCrystals((salt("Br", 6.0), salt("I")), n_read=2),
    )
    assert counts.sun_rate == 2 / 8


def test_without_known_crystals_nothing_is_said_of_novelty():
    counts = discovery(DOCUMENTS, STRUCTURES.get)
    assert (counts.n_novel, counts.sun, counts.sun_rate) == (None, None, None)
    assert counts.n_unique == 4


def test_a_wider_window_finds_more():
    counts = discovery(DOCUMENTS, STRUCTURES.get, [salt("I")], stable_within=0.05)
    assert (counts.n_stable, counts.n_novel) == (5, 4)
    assert counts.sun == ("d", "a", "c", "e")


def test_duplicates_of_the_campaign_are_not_compared_again():
    marked = [d | ({"duplicate_of": "a"} if d["candidate_id"] == "b" else {}) for d in DOCUMENTS]
    asked = []

    def structure_of(name):
        asked.append(name)
        return STRUCTURES[name]

    assert discovery(marked, structure_of).n_unique == 4
    assert "b-1" not in asked


def test_an_empty_campaign_finds_nothing():
    counts = discovery([], STRUCTURES.get, [salt("I")])
    assert (counts.n_candidates, counts.n_unique, counts.sun, counts.sun_rate) == (0, 0, (), 0.0)


def test_what_cannot_be_counted_is_named():
    with pytest.raises(MatrisError, match="candidate a has two documents"):
        discovery([DOCUMENTS[0], DOCUMENTS[0]], STRUCTURES.get)
    with pytest.raises(MatrisError, match=r"document a-1 .* no structure"):
        discovery(DOCUMENTS, {}.get)


def test_a_bin_holds_its_lower_edge():
    assert energy_histogram([0.0, 0.0249, 0.025, 0.05, 0.0500001, -0.001]) == {-0.025: 1, 0.0: 2, 0.025: 1, 0.05: 2}
    assert energy_histogram([]) == {}


def test_known_crystals_that_cannot_be_compared_are_counted_and_no_reason_for_novelty():
    disordered = Structure(Lattice.cubic(5.6), [{"Na": 0.5, "K": 0.5}, "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    overlapping = Structure(Lattice.cubic(5.6), ["Na", "Cl"], [[0, 0, 0], [0.01, 0, 0]])
    unreadable = Candidate.unreadable("bad.cif", "no structure", b"text")
    readable = Candidate.from_structure(salt("Br", 6.0), "NaBr.cif")
    counts = discovery(DOCUMENTS, STRUCTURES.get, [disordered, overlapping, unreadable, readable])
    assert (counts.known.n_read, counts.known.n_disordered, counts.known.n_unreadable) == (4, 1, 2)
    assert counts.n_novel == 3
    for nothing, words in (([], "0 read"), ([disordered, unreadable], "2 read, 1 disordered, 1 unreadable")):
        with pytest.raises(MatrisError, match=words):
            discovery(DOCUMENTS, STRUCTURES.get, nothing)
