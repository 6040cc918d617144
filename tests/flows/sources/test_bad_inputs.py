import os

import pytest
from pymatgen.core import Lattice, Structure

from matris.errors import MatrisError
from matris.flows.campaign.sanity import sanity_problem
from matris.flows.sources.files import read_candidates
from matris.structures import problem_with
from tests.flows.bad_inputs import BAD_INPUTS, FINE, KNOWN, REFUSED, REJECTED, UNREADABLE, cif, folder_with


def outcome_of(candidate):
    """What becomes of a candidate, and why."""
    if candidate.structure is None:
        return UNREADABLE, candidate.error
    reason = problem_with(candidate.structure, KNOWN) or sanity_problem(candidate.structure)
    return (REJECTED if reason else FINE), reason


def outcomes_of(path):
    """What becomes of an input: one answer, or one for each candidate in it."""
    try:
        return [outcome_of(candidate) for candidate in read_candidates(path)]
    except MatrisError as error:
        return [(REFUSED, str(error))]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("bad", BAD_INPUTS, ids=lambda bad: ascii(bad.name))
def test_a_bad_input_ends_with_a_reason_that_names_the_culprit(tmp_path, bad):
    path = bad.write(tmp_path)
    if path.name.startswith("secret") and os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    outcomes = outcomes_of(path)
    harmed = [(outcome, reason) for outcome, reason in outcomes if outcome != FINE]
    if bad.outcome == FINE:
        assert harmed == []
    else:
        assert len(harmed) == (0 if FINE in bad.outcome and not harmed else 1)
    if harmed or bad.outcome == FINE:
        assert len(outcomes) - len(harmed) == bad.n_fine
    for outcome, reason in harmed:
        assert outcome in bad.outcome
        assert any(word in reason.lower() for word in bad.words), reason
        assert "\n" not in reason
        assert len(reason) < 500


def test_there_are_enough_of_them():
    assert len({bad.name for bad in BAD_INPUTS}) == len(BAD_INPUTS) >= 60


def test_large_and_small_cells_stand_beside_each_other(tmp_path):
    small = Structure(Lattice.cubic(2.87), ["Fe"], [[0, 0, 0]])
    folder_with({"bad.cif": cif("Qq1 Qq 0 0 0 1"), "good.cif": cif()})(tmp_path / "all")
    small.to(str(tmp_path / "all" / "small.json"))
    (small * (10, 10, 10)).to(str(tmp_path / "all" / "large.json"))
    assert [outcome for outcome, _ in outcomes_of(tmp_path / "all")] == [UNREADABLE, FINE, FINE, FINE]


def test_no_inputs_are_no_candidates():
    assert list(read_candidates([])) == []
