"""Bad inputs on their way through the funnel: each ends as a document that says why, and costs none of the others."""

import pytest

from matris.errors import MatrisError
from matris.flows.campaign.funnel import Funnel
from matris.flows.sources.files import read_candidates
from matris.stores.candidate_store import CandidateStore
from matris.stores.documents.documents import CheckpointTag, RelaxTag, make_dropped
from tests.flows.bad_inputs import BAD_INPUTS, FINE, KNOWN

CHECKPOINT = CheckpointTag(key="stand-in", sha256="ab" * 32, energy_scale="matpes-pbe")
SETTINGS = RelaxTag(fmax=0.05, max_steps=100, relax_cell=True, digest="cd" * 6)


def candidates_of(bad, folder):
    try:
        return list(read_candidates(bad.write(folder)))
    except MatrisError:
        return []


@pytest.mark.filterwarnings("ignore")
def test_every_bad_input_becomes_a_document_with_a_reason(tmp_path):
    dropped, n_passed = {}, 0
    for bad in BAD_INPUTS:
        for candidate in candidates_of(bad, tmp_path):
            problem = Funnel().problem(candidate, KNOWN)
            if problem is None:
                n_passed += 1
            else:
                document = make_dropped(candidate, *problem, checkpoint=CHECKPOINT, settings=SETTINGS)
                dropped[document.document_id] = document
    assert len(dropped) > 100
    assert n_passed >= sum(bad.n_fine for bad in BAD_INPUTS if bad.outcome == FINE)

    store = CandidateStore.open(tmp_path / "results")
    store.add_dropped(dropped.values())
    stored = {document["document_id"]: document for document in store.query()}
    assert stored.keys() == dropped.keys()
    for name, document in stored.items():
        assert document["state"] == "rejected"
        assert document["stage"] in {"reading", "sanity"}
        assert document["error"] == dropped[name].error != ""
