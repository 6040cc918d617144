"""atomate2's VASP Makers with a fake VASP, and what it calculates."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from atomate2.vasp.jobs.base import BaseVaspMaker
from jobflow import JobStore, run_locally
from maggma.stores import MemoryStore
from pymatgen.core import Lattice, Structure

from tests.makers import fake_vasp

if TYPE_CHECKING:
    from pathlib import Path

    from jobflow import Flow, Maker

COMMAND = f"{sys.executable} -S {fake_vasp.__file__}"
IRON_OXIDE = Structure(Lattice.cubic(3.0), ["Fe", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
MAGNESIA = Structure(Lattice.cubic(2.9), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])


def with_fake_vasp(maker: Maker) -> Maker:
    """The Maker, whose jobs run the fake VASP by custodian, and write the names of POTCARs instead of POTCARs."""
    run = {"vasp_cmd": COMMAND, "vasp_gamma_cmd": COMMAND, "custodian_kwargs": {"polling_time_step": 0.05}}
    settings = {"run_vasp_kwargs": run, "write_input_set_kwargs": {"potcar_spec": True}}
    return maker.update_kwargs(settings, class_filter=BaseVaspMaker)


def run(flow: Flow, folder: Path, store: JobStore | None = None) -> Any:
    """Output of a flow."""
    store = store or JobStore(MemoryStore(), additional_stores={"data": MemoryStore()})
    run_locally(flow, store=store, root_dir=folder, create_folders=True, log=False)
    return store.get_output(flow.output.uuid, load=True)
