"""
What any interatomic potential must obey, as tests that anyone can run on their own checkpoint.

The tests need no reference values. They run by pytest, which is not a dependency of this package: ``pip install
pytest``.

Examples
--------
In a file ``test_mine.py``, which ``pytest test_mine.py`` runs:

>>> import matris
>>> from matris.testing import PotentialTests
>>> class TestMine(PotentialTests):
...     known_failures = {
...         "test_smooth_at_the_three_body_cutoff": "the published architecture has no envelope in its attention",
...     }
...
...     def make_potential(self):
...         return matris.load("mine.safetensors")
"""

from __future__ import annotations

import copy
import types
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pytest
import torch
import torch_sim as ts
from ase import Atoms
from pymatgen.core import Lattice, Structure
from pymatgen.io.ase import AseAtomsAdaptor
from scipy.spatial.transform import Rotation

from matris.calculator import MatRISCalculator
from matris.model.chunked import Chunks
from matris.model.graph import Geometry
from matris.model.network import Evaluation, evaluate
from matris.model.potential import Potential, Prediction
from matris.relaxation.relax import relax
from matris.torchsim import MatRISTorchSimModel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray


__all__ = ["PotentialTests", "paths", "triclinic"]

_USUAL = ("Cu", "In", "Se", "Na", "Mg", "O", "Cl", "Si")
_STEP = {torch.float64: 1e-3, torch.float32: 5e-3}  # Å: shifts from which derivatives are computed
_ENERGY = {torch.float64: 1e-9, torch.float32: 2e-5}  # eV/atom: rounding
_FORCE = {torch.float64: 1e-8, torch.float32: 3e-4}  # eV/Å
_STRESS = {torch.float64: 1e-9, torch.float32: 3e-5}  # eV/Å³
_CURL = {torch.float64: 1e-5, torch.float32: 1e-2}  # of the largest force constant
_MATTERS = 1e-6  # eV: what an atom near a cutoff changes at least
_FEW = 37  # rows in a chunk: many chunks, the last one not full
_PATHS = ("chosen", "recomputed", "chunks", "whole")
_STENCIL, _WEIGHTS = (-2, -1, 1, 2), np.array([1.0, -8.0, 8.0, -1.0]) / 12
"""Steps, and the weights with which they give a first derivative of fourth order."""


def triclinic(elements: Sequence[str]) -> Structure:
    """
    Make a crystal of four atoms without symmetry, of elements that a potential knows.

    Parameters
    ----------
    elements
        Symbols of the supported elements.

    Examples
    --------
    >>> triclinic(["Na", "Cl"]).formula
    'Na2 Cl2'
    """
    usual = [element for element in _USUAL if element in elements] or list(elements[:2])
    species = [usual[i % min(len(usual), 3)] for i in range(4)]
    lattice = Lattice([[4.1, 0.2, -0.1], [0.5, 4.3, 0.3], [-0.3, 0.6, 4.6]])
    return Structure(lattice, species, [[0.02, 0.03, -0.01], [0.52, 0.47, 0.05], [0.49, 0.04, 0.53], [0.0, 0.55, 0.46]])


def paths(potential: Potential) -> dict[str, Callable[[Sequence[Structure]], Evaluation]]:
    """
    List the ways in which a potential computes the same numbers: in C and in torch, whole and in chunks.

    Parameters
    ----------
    potential
        The potential.

    Returns
    -------
    dict
        By name, functions of a batch of structures: ``chosen``, what the potential takes by itself; ``recomputed``,
        for calls that need more memory than there is; ``chunks`` and ``whole``, without functions in C.

    Examples
    --------
    >>> import matris
    >>> sorted(paths(matris.load(device="cpu")))
    ['chosen', 'chunks', 'recomputed', 'whole']
    """

    def computed(change: Callable[[Chunks | None], Chunks | None], structures: Sequence[Structure]) -> Evaluation:
        graph = potential.graph([Geometry.of(structure) for structure in structures])
        chunks = change(potential._chunks(graph))  # noqa: SLF001 - the choice is what is tested
        return evaluate(potential.network, graph, magmoms=potential.has_magmoms, chunks=chunks)

    changes: dict[str, Callable[[Chunks | None], Chunks | None]] = {
        "chosen": lambda chunks: chunks,
        "recomputed": lambda chunks: Chunks(_FEW) if chunks is None else replace(chunks, kept=0.0),
        "chunks": lambda _: Chunks(_FEW),
        "whole": lambda _: None,
    }
    return {name: partial(computed, change) for name, change in changes.items()}


class PotentialTests:
    """
    Tests of a potential: symmetries, locality, derivatives, smoothness, and all entry points.

    A subclass gives the potential in `make_potential`. The tests hold for any weights, trained or not.

    Attributes
    ----------
    known_failures
        Reasons why tests fail, by their names. These tests must fail (pytest's strict xfail): the class says so when a
        later checkpoint passes.
    """

    known_failures: ClassVar[dict[str, str]] = {}

    def __init_subclass__(cls, **options: object) -> None:
        """Mark the tests that are known to fail, in this class alone."""
        super().__init_subclass__(**options)
        for name, reason in cls.known_failures.items():
            test = getattr(cls, name, None)
            if not isinstance(test, types.FunctionType):
                raise TypeError(f"{cls.__name__} has no test {name}")
            own = types.FunctionType(test.__code__, test.__globals__, name, test.__defaults__, test.__closure__)
            own.__dict__.update({key: copy.copy(value) for key, value in vars(test).items()})
            own.__doc__, own.__kwdefaults__ = test.__doc__, test.__kwdefaults__
            setattr(cls, name, pytest.mark.xfail(reason=reason, strict=True)(own))

    def make_potential(self) -> Potential:
        """Load the potential; each subclass does."""
        raise NotImplementedError("make_potential must return the potential that is tested")

    def make_crystal(self, potential: Potential) -> Structure:
        """Make a crystal without symmetry, of at least three atoms; by default `triclinic`."""
        return triclinic(potential.elements)

    @pytest.fixture(scope="class")
    def potential(self) -> Potential:
        """Potential as its users load it."""
        return self.make_potential()

    @pytest.fixture(scope="class")
    def exact(self, potential: Potential) -> Potential:
        """Potential of the same weights in float64, for derivatives and limits."""
        return Potential(copy.deepcopy(potential.network).double(), potential.card)

    @pytest.fixture
    def crystal(self, potential: Potential) -> Structure:
        """Crystal without symmetry, in which the steps of the tests take no atom across a cutoff."""
        config, crystal = potential.config, self.make_crystal(potential)
        return _clear_of(crystal, (config.pairwise_cutoff, config.three_body_cutoff))

    def test_rotation(self, potential: Potential, crystal: Structure) -> None:
        """Energies and moments stay, forces and stress turn with the crystal."""
        rotation = Rotation.from_euler("xyz", [0.3, -1.1, 0.7]).as_matrix()
        turned = Structure(Lattice(crystal.lattice.matrix @ rotation.T), crystal.species, crystal.frac_coords)
        before, after = potential.predict([crystal, turned])
        _same(potential, before, after, rotation=rotation)

    def test_inversion(self, potential: Potential, crystal: Structure) -> None:
        """A mirror image, in a left-handed cell, has the same energy."""
        mirror = Structure(Lattice(-crystal.lattice.matrix), crystal.species, crystal.frac_coords)
        before, after = potential.predict([crystal, mirror])
        _same(potential, before, after, rotation=-np.eye(3))

    def test_translation_and_images(self, potential: Potential, crystal: Structure) -> None:
        """Neither a shift of all atoms nor the image that an atom is written as matters, however far away."""
        moved = crystal.copy()
        moved.translate_sites(range(len(moved)), [0.31, -0.2, 0.55], to_unit_cell=False)
        moved.translate_sites([1], [2, -1, 10_000], to_unit_cell=False)
        before, after = potential.predict([crystal, moved])
        _same(potential, before, after)

    def test_permutation(self, potential: Potential, crystal: Structure) -> None:
        """The order of the atoms is that of the forces, and nothing else."""
        order = np.random.default_rng(1).permutation(len(crystal))
        before, after = potential.predict([crystal, Structure.from_sites([crystal[i] for i in order])])
        _same(potential, before, after, order=order)

    def test_choice_of_cell(self, potential: Potential, crystal: Structure) -> None:
        """Another cell of the same lattice is the same crystal."""
        other = np.array([[1, 1, 0], [0, 1, -2], [0, 0, 1]]) @ crystal.lattice.matrix
        same = Structure(Lattice(other), crystal.species, crystal.cart_coords, coords_are_cartesian=True)
        before, after = potential.predict([crystal, same])
        _same(potential, before, after)

    def test_extensivity(self, potential: Potential, crystal: Structure) -> None:
        """A supercell has a multiple of the energy, and the same forces and stress."""
        supercell = crystal.make_supercell([[2, 0, 0], [0, 1, 0], [1, 0, 2]], in_place=False)
        before, after = potential.predict([crystal, supercell])
        _close(after.energy / 4, before.energy, _ENERGY[potential.dtype] * len(crystal))
        _close(after.stress, before.stress, _STRESS[potential.dtype])
        _close(after.forces, np.repeat(before.forces, 4, axis=0), _FORCE[potential.dtype])

    @pytest.mark.parametrize("path", _PATHS)
    def test_batch_mates(self, potential: Potential, crystal: Structure, path: str) -> None:
        """What is computed beside a crystal does not change it."""
        compute, strained = paths(potential)[path], crystal.copy().apply_strain(0.03)
        together, alone = compute([strained, crystal, strained * (2, 1, 1)]), compute([crystal])
        atoms = slice(len(crystal), 2 * len(crystal))
        tolerance = _ENERGY[potential.dtype] * len(crystal)
        _close(float(together.energies[1]), float(alone.energies[0]), tolerance)
        _close(_host(together.forces[atoms]), _host(alone.forces), _FORCE[potential.dtype])
        _close(_host(together.stresses[1]), _host(alone.stresses[0]), _STRESS[potential.dtype])

    def test_locality(self, potential: Potential, crystal: Structure) -> None:
        """Clusters beyond the cutoffs do not feel each other."""
        reach = max(potential.config.pairwise_cutoff, potential.config.three_body_cutoff) + 1e-3
        box = Lattice.cubic(2 * (reach + 10))
        places = crystal.cart_coords[:3] - crystal.cart_coords[0]
        distance = np.array([reach + np.ptp(places[:, 0]), 0, 0])
        species = list(crystal.species[:3])

        def cluster(*groups: NDArray[np.float64]) -> Structure:
            return Structure(box, species * len(groups), np.concatenate(groups), coords_are_cartesian=True)

        bent = places + np.array([[0, 0, 0], [0, 0.1, 0], [0, 0, 0.2]])
        one, other, both = potential.predict([cluster(places), cluster(bent), cluster(places, bent + distance)])
        tolerance = _ENERGY[potential.dtype] * 6
        _close(both.energy, one.energy + other.energy, tolerance)
        _close(both.forces, np.concatenate([one.forces, other.forces]), _FORCE[potential.dtype])

    def test_isolated_atoms(self, potential: Potential) -> None:
        """Atoms of all elements without neighbours: finite energies, and no forces; so without periodicity too."""
        lone = [Structure(Lattice.cubic(40), [element], [[0.1, 0.2, 0.3]]) for element in potential.elements]
        predictions = list(potential.predict(lone))
        _require(np.isfinite([prediction.energy for prediction in predictions]).all(), "an energy is NaN or infinite")
        _close(np.concatenate([prediction.forces for prediction in predictions]), 0, 0)
        _close(np.stack([prediction.stress for prediction in predictions]), 0, 0)
        atoms = Atoms(potential.elements[0], calculator=MatRISCalculator(potential))
        tolerance = _ENERGY[potential.dtype]
        _close(atoms.get_potential_energy(), predictions[0].energy, tolerance)
        _close(atoms.get_forces(), 0, 0)
        (record,) = relax(lone[0], potential, max_steps=2)
        _require(record.state == "converged", f"the relaxation of a lone atom ended: {record.state} {record.error}")

    def test_no_net_force_and_symmetric_stress(self, potential: Potential, crystal: Structure) -> None:
        """Momentum and angular momentum are conserved."""
        result = potential.predict(crystal)
        _require(np.abs(result.forces).max() > _FORCE[potential.dtype], "all forces vanish: choose another crystal")
        _close(result.forces.sum(axis=0), 0, _FORCE[potential.dtype])
        _close(result.stress, result.stress.T, 1e-12)

    @pytest.mark.parametrize("path", _PATHS)
    def test_paths_agree(self, potential: Potential, exact: Potential, crystal: Structure, path: str) -> None:
        """Every way to compute gives the numbers of the network in float64."""
        expected, actual = paths(exact)["whole"]([crystal]), paths(potential)[path]([crystal])
        tolerance = _ENERGY[potential.dtype] * len(crystal) + 1e-6  # element energies are added in float32
        _close(float(actual.energies[0]), float(expected.energies[0]), tolerance)
        _close(_host(actual.forces), _host(expected.forces), _FORCE[potential.dtype])
        _close(_host(actual.stresses), _host(expected.stresses), _STRESS[potential.dtype])

    @pytest.mark.parametrize("path", _PATHS)
    def test_forces_are_slopes_of_the_energy(self, exact: Potential, crystal: Structure, path: str) -> None:
        """Forces equal finite differences of energies, of fourth order."""
        compute, step = paths(exact)[path], _STEP[exact.dtype]
        shifts = np.array([(i, axis) for i in range(len(crystal)) for axis in range(3)])[::2]
        crystals = [_shifted(crystal, i, axis, m * step) for i, axis in shifts for m in _STENCIL]
        energies = _host(compute(crystals).energies).reshape(len(shifts), 4)
        forces = _host(compute([crystal]).forces)
        slopes = _slope(energies, step)
        _close(forces[shifts[:, 0], shifts[:, 1]], -slopes, 1e-5, relative=1e-5)

    @pytest.mark.parametrize("path", _PATHS)
    def test_stress_is_the_slope_of_the_energy(self, exact: Potential, crystal: Structure, path: str) -> None:
        """Stress equals finite differences of energies by strain."""
        compute, step = paths(exact)[path], _STEP[exact.dtype]
        components = [(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]
        crystals = [_strained(crystal, pair, m * step) for pair in components for m in _STENCIL]
        energies = _host(compute(crystals).energies).reshape(6, 4)
        stress = _host(compute([crystal]).stresses)[0]
        slopes = _slope(energies, step) / crystal.volume
        _close([stress[pair] for pair in components], slopes, 1e-7, relative=1e-5)

    @pytest.mark.parametrize("path", _PATHS)
    def test_forces_have_no_curl(self, potential: Potential, crystal: Structure, path: str) -> None:
        """The matrix of force constants is symmetric, as it is for forces that derive from an energy."""
        compute, step, n = paths(potential)[path], _STEP[potential.dtype], 3 * len(crystal)
        rows = []
        for number in range(n):
            shifted = [_shifted(crystal, number // 3, number % 3, m * step) for m in _STENCIL]
            rows.append(-_slope(_host(compute(shifted).forces).reshape(4, n).T, step))
        constants = np.array(rows)
        largest = np.abs(constants).max()
        _require(largest > _FORCE[potential.dtype], "all force constants vanish: choose another crystal")
        _close(constants, constants.T, _CURL[potential.dtype] * largest)

    def test_smooth_at_the_pair_cutoff(self, exact: Potential, crystal: Structure) -> None:
        """Energy and forces do not jump when an atom crosses the cutoff of the atom graph."""
        _crosses(exact, crystal, exact.config.pairwise_cutoff)

    def test_smooth_at_the_three_body_cutoff(self, exact: Potential, crystal: Structure) -> None:
        """Energy and forces do not jump when an atom crosses the cutoff of the line graph."""
        _crosses(exact, crystal, exact.config.three_body_cutoff)

    def test_entry_points_agree(self, potential: Potential, crystal: Structure) -> None:
        """Prediction, calculator, torch-sim model and relaxation give the same numbers."""
        expected = potential.predict(crystal)
        atoms = _atoms(crystal)
        atoms.calc = MatRISCalculator(potential)
        model = MatRISTorchSimModel(potential)
        output = model(ts.io.atoms_to_state([atoms], model.device, torch.float64))
        (record,) = relax(crystal, potential, max_steps=0)
        tolerance, force = _ENERGY[potential.dtype] * len(crystal), _FORCE[potential.dtype]
        for energy in (atoms.get_potential_energy(), float(output["energy"][0]), record.energy):
            _close(energy, expected.energy, tolerance + abs(expected.energy) * 1e-7)
        for forces in (atoms.get_forces(), _host(output["forces"]), record.forces):
            _close(forces, expected.forces, force)
        for stress in (atoms.get_stress(voigt=False), _host(output["stress"][0]), record.stress):
            _close(stress, expected.stress, _STRESS[potential.dtype])

    def test_non_contiguous_inputs(self, potential: Potential, crystal: Structure) -> None:
        """Strided, reversed and transposed arrays and tensors mean what they say."""
        expected = potential.predict(crystal)
        atoms = _atoms(crystal)
        atoms.arrays["positions"] = np.asfortranarray(atoms.positions)
        atoms.arrays["numbers"] = np.repeat(atoms.numbers, 2)[::2]
        atoms.cell.array[:] = np.asfortranarray(atoms.cell.array)
        (prediction,) = potential.predict_geometries([Geometry.of(atoms)])
        _close(prediction.forces, expected.forces, _FORCE[potential.dtype])
        model = MatRISTorchSimModel(potential)
        state = ts.io.atoms_to_state([atoms], model.device, torch.float64)
        state.positions = state.positions.t().contiguous().t()
        state.cell = state.cell.mT.contiguous().mT
        state.atomic_numbers = state.atomic_numbers.repeat_interleave(2)[::2]
        _require(not state.positions.is_contiguous(), "torch-sim made the positions contiguous")
        _close(_host(model(state)["forces"]), expected.forces, _FORCE[potential.dtype])

    def test_settings_of_torch(self, potential: Potential, crystal: Structure) -> None:
        """Default type, inference mode and reduced precision of products, set by others, change nothing."""
        expected = potential.predict(crystal)
        before, precision = torch.get_default_dtype(), torch.get_float32_matmul_precision()
        try:
            torch.set_default_dtype(torch.float64)
            torch.set_float32_matmul_precision("medium")
            results = [potential.predict(crystal)]
            with torch.inference_mode():
                results.append(potential.predict(crystal))
        finally:
            torch.set_default_dtype(before)
            torch.set_float32_matmul_precision(precision)
        for result in results:
            _same(potential, expected, result)


def _same(
    potential: Potential,
    before: Prediction,
    after: Prediction,
    *,
    rotation: NDArray[np.float64] | None = None,
    order: NDArray[np.intp] | None = None,
) -> None:
    """Assert that a prediction is the other one, of the crystal that was turned or listed in another order."""
    turn = np.eye(3) if rotation is None else rotation
    forces = before.forces @ turn.T
    moments = before.magmoms
    if order is not None:
        forces, moments = forces[order], None if moments is None else moments[order]
    _close(after.energy, before.energy, _ENERGY[potential.dtype] * len(forces))
    _close(after.forces, forces, _FORCE[potential.dtype])
    _close(after.stress, turn @ before.stress @ turn.T, _STRESS[potential.dtype])
    _require((after.magmoms is None) == (moments is None), "only one of two predictions has magnetic moments")
    if moments is not None and after.magmoms is not None:
        _close(after.magmoms, moments, _FORCE[potential.dtype])


def _clear_of(crystal: Structure, cutoffs: Sequence[float]) -> Structure:
    """Expand a crystal a little, until no distance is as close to a cutoff as the longest step."""
    margin = 1.2 * max(_STENCIL) * max(_STEP.values())
    for strain in np.arange(0.0, 0.05, 0.0005):
        candidate = crystal.copy().apply_strain(strain)
        distances = candidate.get_neighbor_list(max(cutoffs) + 1)[3]
        if np.abs(distances[:, None] - np.array(cutoffs)).min() > margin:
            return candidate
    pytest.skip("the crystal has neighbours at a cutoff, however it is expanded: choose a smaller one")


def _close(actual: Any, expected: Any, tolerance: float, relative: float = 0.0) -> None:
    """Assert that numbers are equal; the message shows where they are not (pytest rewrites no ``assert`` here)."""
    np.testing.assert_allclose(np.asarray(actual), np.asarray(expected), rtol=relative, atol=tolerance)


def _require(condition: object, message: str) -> None:
    """Fail with a message."""
    if not condition:
        pytest.fail(message)


def _crosses(potential: Potential, crystal: Structure, cutoff: float) -> None:
    """Let an atom cross a cutoff beside a third one, which gives both bonds angles."""
    species = [str(species) for species in crystal.species[:3]]

    def at(distance: float) -> Structure:
        places = np.array([[0, 0, 0], [distance, 0, 0], [2.4, 0.3, 0.1]])
        return Structure(Lattice.cubic(40), species, places, coords_are_cartesian=True)

    step = 1e-7
    before, inside, outside = potential.predict([at(cutoff - 0.05), at(cutoff - step), at(cutoff + step)])
    _require(abs(before.energy - outside.energy) > _MATTERS, "the atom does not matter: choose another crystal")
    work = 2 * step * outside.forces[1, 0]  # of a force that may be large: this molecule is no crystal
    _close(inside.energy - work, outside.energy, 1e-6)
    _close(inside.forces, outside.forces, 1e-5 * (1 + np.abs(outside.forces).max()))


def _slope(values: NDArray[np.float64], step: float) -> NDArray[np.float64]:
    """Compute derivatives from values at the steps of the stencil, in the last axis."""
    slopes: NDArray[np.float64] = values @ _WEIGHTS / step
    return slopes


def _shifted(crystal: Structure, atom: int, axis: int, step: float) -> Structure:
    """Shift one atom along one axis by a step, Å."""
    moved = crystal.copy()
    moved.translate_sites([int(atom)], step * np.eye(3)[axis], frac_coords=False, to_unit_cell=False)
    return moved


def _strained(crystal: Structure, component: tuple[int, int], step: float) -> Structure:
    """Apply one component of a symmetric strain."""
    strain = np.eye(3)
    strain[component] += step / 2
    strain[component[::-1]] += step / 2
    return Structure(Lattice(crystal.lattice.matrix @ strain), crystal.species, crystal.frac_coords)


def _atoms(crystal: Structure) -> Atoms:
    """Convert to ASE."""
    atoms: Atoms = AseAtomsAdaptor.get_atoms(crystal, msonable=False)
    return atoms


def _host(tensor: torch.Tensor) -> NDArray[np.float64]:
    """Copy to the host, in float64."""
    array: NDArray[np.float64] = tensor.detach().double().cpu().numpy()
    return array
