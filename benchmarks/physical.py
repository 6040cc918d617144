"""Physical behaviour of a potential, for `accuracy.py`: phonons, ground states, a hull, and smoothness."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.spacegroup import crystal
from pymatgen.analysis.phase_diagram import PhaseDiagram
from pymatgen.core import Composition
from pymatgen.entries.computed_entries import ComputedEntry
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer
from reference_data import Case, read_json, shuffled

import matris
from matris.flows.sources.known_phases import known_phases
from matris.flows.sources.prototypes import elemental_references, generate_candidates
from matris.properties.phonons import JOULE_PER_MOLE, PhononSettings, phonons
from matris.stores.documents.corrections import corrected_entry
from matris.stores.hull.references import load_references
from matris.structures import to_structure
from recipes.embedded.materials import simple_crystals

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from potentials import Contestant

type Found = dict[str, Any]

GROUND_STATES = {
    "MgO": (225,), "Li2O": (225,), "Fe": (229,), "Si": (227,), "ZnO": (186,), "NaCl": (225,), "CsCl": (221,),
    "TiO2": (136, 141), "Al2O3": (167,),
    "CaF2": (225,), "GaAs": (216,), "AlN": (186,), "GaN": (186,), "KBr": (225,), "LiF": (225,), "CaO": (225,),
    "BaO": (225,), "Cu": (225,), "Al": (225,), "Ag": (225,), "Ni": (225,), "W": (229,), "Mo": (229,), "Nb": (229,),
    "Mg": (194,), "Zn": (194,), "MgF2": (136,), "SnO2": (136,), "InP": (216,),
}  # fmt: skip
"""Compounds and the space groups of their observed ground states."""

SYMPREC = 0.05  # Å, for relaxed crystals
TEMPERATURE = 300.0  # K
MAX_SITES = 16  # in the cells for heat capacities
MIN_LENGTH = 10.0  # Å, of the supercells for heat capacities
WINDOW = 0.05  # eV/atom
STEP = 2e-4  # relative change of lengths
SMALL, LARGE = 0.003, 0.06  # Å, displacements along an optical mode


def heat_capacities(data: Path) -> list[Case]:
    """Return binary crystals with their harmonic heat capacities at 300 K (J/K per mole of cells)."""
    rows = read_json(data / "alexandria_phonon_cv.json.gz")
    cases = shuffled([(row["mp_id"], (row["structure"], float(row["heat_capacity"]))) for row in rows])
    return [case for case in cases if len(case[1][0]) <= MAX_SITES]


def heat_capacity(contestant: Contestant, chosen: Sequence[Case]) -> Iterator[tuple[str, Found]]:
    """Yield the lowest frequency (THz) and the error of the heat capacity (J/K per mole of atoms)."""
    settings = PhononSettings(min_length=MIN_LENGTH, temperatures=(0.0, TEMPERATURE))
    records = phonons([c[0] for _, c in chosen], contestant.model, settings=settings, fmax=1e-3, max_steps=500)
    for (name, (structure, reference)), record in zip(chosen, records, strict=True):
        if record.phonons is None:
            yield name, {"failed": str(record.error)[:200]}
            continue
        result = record.phonons
        per_atom = float(result.heat_capacity[-1]) * JOULE_PER_MOLE / result.n_atoms
        yield (
            name,
            {
                "error_per_atom": per_atom - reference / len(structure),
                "imaginary": result.has_imaginary_modes,
                "lowest": result.min_frequency,
            },
        )


def ground_states(_: Path) -> list[Case]:
    """Return compounds, each with generated crystals of its formula."""
    cases: list[Case] = []
    for formula in GROUND_STATES:
        elements = sorted(Composition(formula).chemical_system_set)
        source = elemental_references(elements) if len(elements) == 1 else generate_candidates(elements)
        crystals = [c.structure for c in source if c.structure and c.structure.composition.reduced_formula == formula]
        if len(elements) == 1:
            crystals += simple_crystals(elements[0], crystals[0].volume / len(crystals[0])).values()
        cases.append((formula, (crystals[0], crystals)))
    return cases


def ground_state(contestant: Contestant, chosen: Sequence[Case]) -> Iterator[tuple[str, Found]]:
    """Relax the crystals of a compound; yield whether the crystal of lowest energy has the observed space group."""
    for formula, (_, crystals) in chosen:
        relaxed = [
            r for r in matris.relax(crystals, contestant.model, fmax=0.02, max_steps=500) if r.state == "converged"
        ]
        energies = {}
        for record in relaxed:
            group = SpacegroupAnalyzer(record.structure, symprec=SYMPREC).get_space_group_number()
            energy = record.energy / len(record.structure)
            energies[group] = min(energy, energies.get(group, np.inf))
        lowest = min(energies, key=lambda group: energies[group])
        observed = [energies[g] for g in GROUND_STATES[formula] if g in energies]
        yield (
            formula,
            {
                "right": lowest in GROUND_STATES[formula],
                "lowest": lowest,
                "above": 1e3 * (min(observed) - energies[lowest]) if observed else None,
                "converged": len(relaxed),
            },
        )


def stable_phases(data: Path) -> list[Case]:
    """Return the phases on the hull of the Li–Fe–O entries."""
    path = data / "li_fe_o_entries.json.gz"
    references = load_references(path, "mp")
    stable = {str(entry.entry_id) for entry in PhaseDiagram(references.entries).stable_entries}
    return [
        (phase.provenance["entry_id"], (phase.structure, references.entries))
        for phase in known_phases(path, ["Fe-Li-O"])
        if phase.provenance["entry_id"] in stable and phase.structure
    ]


def distance_to_hull(contestant: Contestant, chosen: Sequence[Case]) -> Iterator[tuple[str, Found]]:
    """Relax stable phases; yield their distances to the hull of the entries (meV/atom)."""
    for record in matris.relax([c[0] for _, c in chosen], contestant.model, fmax=0.02, max_steps=500):
        name, (_, entries) = chosen[record.index]
        if record.structure is None or record.energy is None:
            yield name, {"failed": str(record.error)[:200]}
            continue
        if contestant.corrected:
            entry = ComputedEntry(record.structure.composition, record.energy)
        else:
            entry = corrected_entry(record.structure, record.energy, "mp")
        others = [e for e in entries if str(e.entry_id) != name]
        above = PhaseDiagram(others).get_decomp_and_e_above_hull(entry, allow_negative=True)[1]
        yield name, {"above": 1e3 * float(above), "state": record.state}


def scans(_: Path) -> list[Case]:
    """Return crystals that are stretched over a range in which shells of neighbours cross cutoffs."""
    cells = {
        "Si": bulk("Si"), "Cu": bulk("Cu"), "Fe": bulk("Fe"), "MgO": bulk("MgO", "rocksalt", a=4.25),
        "NaCl": bulk("NaCl", "rocksalt", a=5.69), "CsCl": bulk("CsCl", "cesiumchloride", a=4.2),
        "TiO2": _rutile(),
    }  # fmt: skip
    return [(name, (to_structure(cell), cell)) for name, cell in cells.items()]


def _rutile() -> Atoms:
    """Return rutile."""
    return crystal(["Ti", "O"], [(0, 0, 0), (0.305, 0.305, 0)], spacegroup=136, cellpar=[4.6, 4.6, 2.96, 90, 90, 90])


def energy_steps(contestant: Contestant, chosen: Sequence[Case]) -> Iterator[tuple[str, Found]]:
    """
    Yield the largest jump of the energy in a fine scan of the volume (meV/atom).

    A jump is the difference of neighbouring energies from the mean of the two differences beside it. It is of second
    order in the step for a smooth function; the lengths of bonds change by 0.02 % in a step.
    """
    for name, (_, cell) in chosen:
        strained = []
        for scale in np.arange(0.95, 1.05, STEP):
            atoms = cell.copy()
            atoms.set_cell(atoms.cell[:] * scale, scale_atoms=True)
            strained.append(atoms)
        energies = np.array([a.energy for a in contestant.predict(strained)]) * 1e3 / len(cell)
        slopes = np.diff(energies)
        yield name, {"step": float(np.abs(slopes[1:-1] - (slopes[:-2] + slopes[2:]) / 2).max())}


def optical_modes(_: Path) -> list[Case]:
    """Return crystals with an atom and a direction along which it vibrates against the others."""
    perovskite = Atoms("SrTiO3", cell=[3.94] * 3, pbc=True, scaled_positions=[
        (0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5)
    ])  # fmt: skip
    cells = {"MgO": (bulk("MgO", "rocksalt", a=4.25), 1), "SrTiO3": (perovskite, 2)}
    return [(name, (to_structure(cell), cell, atom)) for name, (cell, atom) in cells.items()]


def optical_mode(contestant: Contestant, chosen: Sequence[Case]) -> Iterator[tuple[str, Found]]:
    """
    Yield the ratio of a mode's frequency at `LARGE` and at `SMALL` displacements, in percent from one.

    An oxygen atom moves along z against the rest, in SrTiO3 along the bond to titanium; the force constant is −F/d.
    """
    for name, (_, cell, atom) in chosen:
        moved = []
        for length in (SMALL, -SMALL, LARGE, -LARGE):
            atoms = cell.copy()
            atoms.positions[atom, 2] += length
            moved.append(atoms)
        forces = [answer.forces[atom, 2] for answer in contestant.predict(moved)]
        small, large = ((forces[i + 1] - forces[i]) / (2 * d) for i, d in ((0, SMALL), (2, LARGE)))
        change = 100 * (np.sqrt(large / small) - 1) if small > 0 and large > 0 else None
        yield name, {"change": change, "small": float(small), "large": float(large)}
