"""One Slurm job that holds all GPUs of a node: jobflow-remote feeds each, or a campaign has a process on each."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from typing import TYPE_CHECKING

import pytest

from benchmarks.asleep import asleep
from matris.flows.campaign.campaign import Campaign
from tests.cluster.chunks import outputs, uses
from tests.cluster.named_devices import CHUNKS
from tests.cluster.remote import REPOSITORY, project, runner
from tests.cluster.slurm import ask, clashes

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.cluster


def test_jobs_on_each_gpu(cluster: dict[str, str], projects: Path, mongo_server: str) -> None:
    from jobflow import Flow
    from jobflow_remote import submit_flow

    options = ["--whole-node", "--max-jobs", "1"]
    file = project(projects, "nodes", f"{mongo_server}/slurm_nodes", *options)
    file.write_text(file.read_text().replace("    batch:\n", "    batch:\n      sleep_time: 1\n"))
    jobs = [asleep(3.0) for _ in range(8)]
    submit_flow(Flow(jobs), worker="gpu", project="nodes")
    with runner(file):
        states, told = outputs("nodes", jobs, minutes=10)
    assert states == ["COMPLETED"] * 8
    used = uses(told)
    assert {use.gpu for use in used} == {"0", "1", "2", "3"}
    assert clashes(used) == []
    node = {each["ran_on"]["scheduler_job"] for each in told}
    assert node == {ask(cluster, "squeue", "-h", "-o", "%i")}, "all in the one job, which waits for more"
    ask(cluster, "scancel", *node)


def test_a_process_on_each_gpu(cluster: dict[str, str], tmp_path: Path) -> None:
    devices = [f"cuda:{number}" for number in range(4)]
    code = f"from tests.cluster.named_devices import main; main('{tmp_path}', '{','.join(devices)}')"
    what = ["--gres=gpu:4", "--cpus-per-task=4", f"--chdir={REPOSITORY}", f"--output={tmp_path}/log"]
    assert ask(cluster, "sbatch", *what, f'--wrap=PYTHONPATH={REPOSITORY} {sys.executable} -c "{code}"')
    end = time.monotonic() + 600
    while ask(cluster, "squeue", "-h", "-o", "%j").count("wrap"):
        assert time.monotonic() < end
        time.sleep(0.5)
    log = (tmp_path / "log").read_text()
    campaign = Campaign.open(tmp_path / "store")
    assert [document["state"] for document in campaign.documents()] == ["converged"] * 2 * CHUNKS, log
    processes = defaultdict(set)
    for line in (tmp_path / "told").read_text().splitlines():
        device, given, process = line.split()
        assert given == "0,1,2,3"
        processes[device].add(process)
    assert sorted(processes) == devices
    assert all(len(each) == 1 for each in processes.values()), processes
    assert len(set.union(*processes.values())) == 4, "a process for each device"
