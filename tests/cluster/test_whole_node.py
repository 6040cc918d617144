"""One Slurm job that holds all GPUs of a node, and feeds each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks.standin import StandInMaker
from tests.cluster.chunks import crystals, outputs, uses
from tests.cluster.remote import project, runner
from tests.cluster.slurm import ask, clashes

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.cluster


def test_a_job_of_slurm_feeds_four_gpus(cluster: dict[str, str], projects: Path, mongo_server: str) -> None:
    from jobflow import Flow
    from jobflow_remote import submit_flow

    file = project(
        projects,
        "nodes",
        f"{mongo_server}/slurm_nodes",
        "--whole-node",
        "--max-jobs",
        "1",
        "--env",
        "MATRIS_DEVICE=cpu",
    )
    file.write_text(file.read_text().replace("    batch:\n", "    batch:\n      sleep_time: 1\n"))
    jobs = [StandInMaker(seconds=1.0).make(crystals(3, chunk)) for chunk in range(5)]
    submit_flow(Flow(jobs), worker="gpu", project="nodes")
    with runner(file):
        states, chunks = outputs("nodes", jobs, minutes=3)
    assert states == ["COMPLETED"] * 5
    used = uses(chunks)
    assert {use.gpu for use in used} == {"0", "1", "2", "3"}
    assert clashes(used) == []
    assert {chunk["ran_on"]["scheduler_job"] for chunk in chunks} == {ask(cluster, "squeue", "-h", "-o", "%i")}
