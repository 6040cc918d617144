"""Make a static VASP calculation of each of the best candidates of a store, with the settings of their energy scale."""

from __future__ import annotations

import argparse
import sys

from jobflow import Flow
from monty.serialization import dumpfn

from matris.errors import MatrisError
from matris.makers import LabelMaker
from matris.stores import CandidateStore


def static_flow(store: str, text: str, number: int) -> Flow:
    """
    Make a flow of VASP calculations at relaxed structures.

    Parameters
    ----------
    store
        Folder or URI of the results.
    text
        Filter, in the language of ``matris query``.
    number
        Largest number of calculations; the candidates nearest to the hull come first.

    Returns
    -------
    Flow
        Independent flows. The last job of each makes the labels of its candidate.
    """
    query = CandidateStore.open(store).query().where(text).sort("energy_above_hull").limit(number)
    jobs = []
    for document, structure in query.structures():
        maker = LabelMaker(energy_scale=document["checkpoint"]["energy_scale"], static_only=True)
        jobs.append(maker.make(structure, candidate_id=document["candidate_id"]))
    return Flow(jobs, name=f"VASP for {text}")


def main() -> None:
    """Write the flow to a file, for ``jobflow.run_locally``, jobflow-remote or FireWorks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store")
    parser.add_argument("flow", help="file to write")
    parser.add_argument("--filter", default="energy_above_hull < 0.05")
    parser.add_argument("--number", type=int, default=20)
    options = parser.parse_args()
    try:
        flow = static_flow(options.store, options.filter, options.number)
    except MatrisError as error:
        sys.exit(str(error))
    dumpfn(flow, options.flow)
    sys.stdout.write(f"{len(flow.jobs)} calculations in {options.flow}\n")


if __name__ == "__main__":
    main()
