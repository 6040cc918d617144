"""A campaign on all GPUs of a node, a process for each, as `matris screen --device cuda:0,cuda:1` runs it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.standin import StandIn, StandInMaker
from matris.flows.campaign.campaign import Campaign
from matris.flows.campaign.funnel import Funnel
from matris.flows.local.runner import run
from matris.stores.documents.candidate import Candidate
from tests.cluster.chunks import crystals

PLAIN = Funnel(sanity=False, duplicates=False, hull=False)
CHUNKS = 8


@dataclass
class NamedDeviceMaker(StandInMaker):
    """
    The stand-in, which computes on the CPU, and writes down which GPU it was told to take.

    Parameters
    ----------
    told
        File for lines of the device, the GPUs of the job, and the process.
    """

    told: str = ""

    def potential(self) -> Any:
        """Make the stand-in, if the device is one of the job's."""
        given = os.environ["CUDA_VISIBLE_DEVICES"].split(",")
        kind, _, number = str(self.device).partition(":")
        assert kind == "cuda"
        assert int(number) < len(given)
        with Path(self.told).open("a") as file:
            file.write(f"{self.device} {','.join(given)} {os.getpid()}\n")
        return StandIn(self.seconds)


def main(folder: str, devices: str) -> None:
    """Run the campaign in a job of the scheduler."""
    maker = NamedDeviceMaker(seconds=1.0, told=f"{folder}/told")
    candidates = [Candidate.from_structure(each, "rock salt") for each in crystals(2 * CHUNKS)]
    run(Campaign(f"{folder}/store", maker, PLAIN, chunk_size=2), candidates, devices.split(","))
