"""A setting has one name in functions, Makers and options. atomate2's names stay in the drop-ins for its Makers."""

from __future__ import annotations

import inspect
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import pytest
import typer
from atomate2.forcefields.jobs import ForceFieldRelaxMaker

import matris
from matris import makers
from matris.cli import app
from matris.flows import Campaign, Funnel
from matris.properties.arrhenius import diffusion
from matris.properties.barriers import migrations
from matris.properties.conductivity import ConductivitySettings, conductivity
from matris.properties.defects import defects
from matris.properties.dynamics import dynamics
from matris.properties.elastic import elastic
from matris.properties.ensembles import DynamicsSettings
from matris.properties.eos import eos
from matris.properties.phonons import PhononSettings, phonons
from matris.properties.qha import quasi_harmonic
from matris.properties.surfaces import surfaces
from matris.relaxation.records import RelaxSettings
from matris.training.finetuning import finetune
from matris.training.trainer import TrainSettings

if TYPE_CHECKING:
    from collections.abc import Callable

COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
OF_COMMANDS = {"files", "folder", "store", "output", "report", "submit", "project", "worker", "resource", "config"}
OF_FUNCTIONS = {"structures", "potential", "settings", "progress", "max_batch_atoms", "born", "correct"}
PROPERTIES: dict[str, tuple[type, tuple[Callable[..., Any], ...]]] = {
    "elastic": (makers.BatchElasticMaker, (elastic,)),
    "eos": (makers.BatchEosMaker, (eos,)),
    "phonon": (makers.BatchPhononMaker, (phonons, PhononSettings)),
    "qha": (makers.BatchQhaMaker, (quasi_harmonic, PhononSettings)),
    "kappa": (makers.BatchKappaMaker, (conductivity, ConductivitySettings)),
    "neb": (makers.BatchNebMaker, (migrations,)),
    "defects": (makers.BatchDefectsMaker, (defects,)),
    "surfaces": (makers.BatchSurfacesMaker, (surfaces,)),
    "md": (makers.BatchMDMaker, (dynamics, DynamicsSettings)),
    "diffusion": (makers.BatchDiffusionMaker, (diffusion,)),
}


def parameters(function: Callable[..., Any]) -> set[str]:
    return set(inspect.signature(function).parameters) - {"self"}


def options(command: str) -> set[str]:
    return {parameter.name for parameter in COMMANDS[command].params}


@pytest.mark.parametrize("name", PROPERTIES)
def test_properties(name: str) -> None:
    maker, functions = PROPERTIES[name]
    of_maker = parameters(maker)
    assert options(name) - OF_COMMANDS <= of_maker
    for function in functions:
        assert parameters(function) - OF_FUNCTIONS - {"temperatures"} <= of_maker
    assert {"steps", "relax_kwargs"}.isdisjoint(of_maker)


def test_relaxations() -> None:
    shared = {"relax_cell", "fmax", "max_steps", "optimizer", "pressure"}
    assert shared <= parameters(matris.relax) & parameters(makers.BatchRelaxMaker) & options("relax")
    assert parameters(RelaxSettings) <= parameters(matris.relax)
    screening = parameters(makers.BatchRelaxMaker) | parameters(Funnel) | parameters(Campaign)
    words = {"sources", "chemsys", "competitors", "keep_duplicates", "static", "then"}  # of the command line alone
    assert options("screen") - OF_COMMANDS - words <= screening


def test_training() -> None:
    assert options("finetune") - OF_COMMANDS - {"checkpoint"} <= parameters(TrainSettings) | parameters(finetune)
    assert "energy_scale" in options("data") & options("label") & options("finetune")


def test_drop_ins_keep_the_names_of_atomate2() -> None:
    assert {field.name for field in fields(ForceFieldRelaxMaker)} <= parameters(makers.RelaxMaker)


def test_a_setting_under_its_old_name_is_refused() -> None:
    with pytest.raises(ValueError, match=r"fmax, pressure, steps in relax_kwargs: write BatchRelaxMaker\(.*pressure=…"):
        makers.BatchRelaxMaker(relax_kwargs={"fmax": 0.1, "steps": 3, "pressure": 1.0})
