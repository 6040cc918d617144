"""
Properties of many materials in one batch, against one by one: ``python benchmarks/batches.py --help``.

One by one means the programs that others use, with our calculator: ASE's relaxations and climbing-image elastic band
for the barriers, phono3py for the conductivities. Both ways take the same crystals, images, displacements, meshes and
bounds on the forces. They alternate by groups of materials.
"""

from __future__ import annotations

import argparse
import time
import warnings
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from ase.constraints import FixSymmetry
from ase.filters import FrechetCellFilter
from ase.mep import NEB
from ase.optimize import FIRE
from peers import machine
from phono3py import Phono3py
from phonopy.structure.atoms import PhonopyAtoms
from pymatgen.core import Element, Lattice, Structure
from pymatgen.io.ase import AseAtomsAdaptor

import matris
from matris.boards.kappa import prototype
from matris.properties.barriers import MigrationPath, barriers
from matris.properties.conductivity import ConductivitySettings, conductivity

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ase import Atoms

    from matris.model.potential import Potential

GROUPS = 2
FCC = ("Al", "Cu", "Ag", "Au", "Ni", "Pd", "Pt", "Pb", "Rh", "Ir")
SALTS = ("MgO", "NaCl", "LiF", "KCl", "CaO", "NaF", "KF", "LiCl", "SrO", "NaBr")
N_IMAGES, SPRING, CLIMBS_BELOW, FMAX, STEPS = 5, 0.1, 0.5, 0.05, 500
KAPPA_FMAX, DISPLACEMENT, REPEATS, MESH, CUTOFF = 1e-3, 0.03, (2, 2, 2), (9, 9, 9), 3.5


def hop(symbol: str) -> MigrationPath:
    """Make the hop of a neighbour into a vacancy, in 31 atoms."""
    edge = 2**1.5 * float(Element(symbol).metallic_radius or Element(symbol).atomic_radius)
    crystal = Structure.from_spacegroup("Fm-3m", Lattice.cubic(edge), [symbol], [[0, 0, 0]]).make_supercell(2)
    near = int(np.argsort(crystal.distance_matrix[0])[1])
    start, end = crystal.copy(), crystal.copy()
    end[near] = symbol, crystal[0].frac_coords
    start.remove_sites([0])
    end.remove_sites([0])
    return MigrationPath(start, end)


def barriers_together(paths: Sequence[MigrationPath], potential: Potential) -> list[float]:
    """Compute the barriers (eV) in one batch."""
    records = barriers(paths, potential, n_images=N_IMAGES, fmax=FMAX, max_steps=STEPS, spring=SPRING, optimizer="fire")
    return [float("nan") if record.barrier is None else record.barrier.forward for record in records]


def barrier_alone(path: MigrationPath, potential: Potential) -> float:
    """Compute a barrier (eV) by ASE."""
    calculator = matris.MatRISCalculator(potential)

    def atoms_of(structure: Structure) -> Atoms:
        atoms = AseAtomsAdaptor.get_atoms(structure, msonable=False)
        atoms.calc = calculator
        return atoms

    ends = [atoms_of(path.start), atoms_of(path.end)]
    energies = []
    for atoms in ends:
        FIRE(atoms, logfile=None).run(fmax=FMAX, steps=STEPS)
        energies.append(float(atoms.get_potential_energy()))
    images = [ends[0], *(atoms_of(path.start) for _ in range(N_IMAGES)), ends[1]]
    band = NEB(images, k=SPRING, method="improvedtangent", allow_shared_calculator=True)
    band.interpolate("idpp", mic=True)
    optimizer = FIRE(band, logfile=None)
    optimizer.run(fmax=CLIMBS_BELOW, steps=STEPS)
    band.climb = True
    optimizer.run(fmax=FMAX, steps=STEPS)
    return max(float(image.get_potential_energy()) for image in images[1:-1]) - energies[0]


def kappas_together(crystals: Sequence[Structure], potential: Potential) -> list[float]:
    """Compute the conductivities (W/m/K at 300 K) in one batch."""
    settings = ConductivitySettings(
        supercell=REPEATS,
        supercell_fc3=REPEATS,
        displacement=DISPLACEMENT,
        pair_cutoff=CUTOFF,
        mesh=MESH,
        temperatures=(300.0,),
    )
    records = conductivity(crystals, potential, fmax=KAPPA_FMAX, max_steps=STEPS, settings=settings)
    return [float("nan") if r.conductivity is None else float(r.conductivity.mean[0]) for r in records]


def kappa_alone(crystal: Structure, potential: Potential) -> float:
    """Compute a conductivity (W/m/K at 300 K) by ASE and phono3py; two meshes, as ours."""
    atoms = AseAtomsAdaptor.get_atoms(crystal, msonable=False)
    atoms.calc = matris.MatRISCalculator(potential)
    atoms.set_constraint(FixSymmetry(atoms, symprec=1e-3))
    FIRE(FrechetCellFilter(atoms), logfile=None).run(fmax=KAPPA_FMAX, steps=STEPS)
    relaxed = PhonopyAtoms(symbols=atoms.symbols, cell=atoms.cell.array, scaled_positions=atoms.get_scaled_positions())
    matrix = np.diag(REPEATS)
    solver = Phono3py(relaxed, matrix, primitive_matrix="auto", phonon_supercell_matrix=matrix, symprec=1e-3)
    solver.generate_displacements(distance=DISPLACEMENT, cutoff_pair_distance=CUTOFF)
    solver.generate_fc2_displacements(distance=DISPLACEMENT)

    def forces_of(cell: PhonopyAtoms) -> np.ndarray:
        moved = atoms.__class__(cell.symbols, cell=cell.cell, scaled_positions=cell.scaled_positions, pbc=True)
        moved.calc = atoms.calc
        return moved.get_forces()

    rest = np.zeros((len(solver.supercell), 3))
    forces = [rest if cell is None else forces_of(cell) for cell in solver.supercells_with_displacements]
    solver.forces = forces
    solver.phonon_forces = [forces_of(cell) for cell in solver.phonon_supercells_with_displacements]
    solver.produce_fc2(symmetrize_fc2=True)
    solver.produce_fc3(symmetrize_fc3r=True)
    for mesh in (tuple(int(0.75 * n) for n in MESH), MESH):
        solver.mesh_numbers = list(mesh)
        solver.init_phph_interaction(average_degenerate_weights=True)
        solver.run_thermal_conductivity(temperatures=[300.0], is_isotope=True, transport_type="SMM19")
    return float(np.asarray(solver.thermal_conductivity.kappa[0])[0, :3].mean())


type Part = tuple[str, list[Any], Callable[[Sequence[Any], Potential], list[float]], Callable[[Any, Potential], float]]


def compare(part: Part, potential: Potential) -> str:
    """Run both ways in alternation; return a row of the table."""
    name, items, together, alone = part
    batch, single, ours, theirs = [], [], [], []
    for group in range(GROUPS):
        chosen = items[group::GROUPS]
        started = time.perf_counter()
        ours += together(chosen, potential)
        batch.append(time.perf_counter() - started)
        started = time.perf_counter()
        theirs += [alone(item, potential) for item in chosen]
        single.append(time.perf_counter() - started)
    ratios = [b / a for a, b in zip(batch, single, strict=True)]
    difference = np.abs(np.subtract(ours, theirs)) / np.abs(theirs)
    return (
        f"| {name} | {len(items)} | {sum(batch):.0f} | {sum(single):.0f} | "
        f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) | {np.isfinite(difference).sum()} | "
        f"{100 * np.nanmedian(difference):.2f} ({100 * np.nanmax(difference):.2f}) |"
    )


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=("neb", "kappa"), default=("neb", "kappa"))
    parser.add_argument("--count", type=int, default=10, help="materials of each part")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--checkpoint")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore", module="ase|phono3py|phonopy|pymatgen")
    potential = matris.load(options.checkpoint, device=options.device)
    parts: dict[str, Part] = {
        "neb": ("barriers of vacancies", [hop(symbol) for symbol in FCC], barriers_together, barrier_alone),
        "kappa": ("thermal conductivities", [prototype(s, 225) for s in SALTS], kappas_together, kappa_alone),
    }
    print(f"{machine(options.device, options.threads)}, {potential.card.key}\n")
    print(
        "| property | materials | one batch, s | one by one, s | ratio: median (range) | compared "
        "| difference, %: median (largest) |"
    )
    print("|---|---|---|---|---|---|---|")
    for name in options.parts:
        title, items, together, alone = parts[name]
        print(compare((title, items[: options.count], together, alone), potential), flush=True)


if __name__ == "__main__":
    main()
