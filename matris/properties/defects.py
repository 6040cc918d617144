"""Formation energies of neutral point defects of many crystals, all supercells computed together."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from pymatgen.core import Element, Structure
from pymatgen.entries.computed_entries import ComputedEntry

from matris.extras import require
from matris.properties.chemical_potentials import SAME_ENERGY, chemical_potentials, corrections_per_atom
from matris.properties.groups import PropertyRecord, Relaxer, UnusableCellError, attempt, check_cells, derive
from matris.properties.phonons import supercell_matrix
from matris.structures import one_or_many
from matris.vacuum import vacuum_warning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from ase import Atoms
    from numpy.typing import NDArray
    from torch_sim.models.interface import ModelInterface

    from matris.model.potential import Potential
    from matris.properties.chemical_potentials import Limit
    from matris.relaxation.records import OptimizerName, RelaxRecord

    type Correct = Callable[[Structure, float], ComputedEntry]

type DefectKind = Literal["vacancy", "antisite", "interstitial"]

KINDS: tuple[DefectKind, ...] = ("vacancy", "antisite", "interstitial")
"""Kinds of point defects."""

_SYMPREC = 0.05  # Å, for relaxed crystals
_NEIGHBORS = 5.0  # Å: atoms so close to a defect are displaced at the start,
_KICK = 0.05  # Å: by so much, because relaxations do not leave a symmetric saddle point
_NEUTRAL = {"oxi_state": 0}  # otherwise pymatgen guesses oxidation states, which fails for some cells
_EQUAL = 2e-3  # eV: defects whose energies differ by less are the same


@dataclass(frozen=True, eq=False)
class PointDefect:
    """
    A point defect.

    Attributes
    ----------
    name
        Name: ``v_O`` is a vacancy of O, ``Na_Cl`` Na on a site of Cl, ``Na_i`` an interstitial. Defects of the same
        name are numbered.
    kind
        ``"vacancy"``, ``"antisite"`` or ``"interstitial"``.
    change
        Number of atoms added to the crystal, by element; negative for removed ones.
    site
        Fractional coordinates of the defect in the cell of the relaxed crystal.
    multiplicity
        Number of equivalent sites in its cell.
    cell
        Supercell; after the relaxation the relaxed one.
    state
        State of its relaxation; None before.
    error
        Why it failed.
    energy_change
        Energy of the supercell with the defect minus that without, eV.
    formation_energies
        Formation energy at each limit of the chemical potentials, eV.
    displacement
        Largest displacement of an atom in the relaxation, Å.
    warnings
        Caveats.
    """

    name: str
    kind: DefectKind
    change: Mapping[str, int]
    site: tuple[float, float, float]
    multiplicity: int
    cell: Structure
    state: str | None = None
    error: str | None = None
    energy_change: float | None = None
    formation_energies: tuple[float, ...] = ()
    displacement: float | None = None
    warnings: tuple[str, ...] = ()

    @property
    def lowest(self) -> float | None:
        """Lowest formation energy of all limits, eV."""
        return min(self.formation_energies, default=None)


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class DefectsRecord(PropertyRecord):
    """
    Point defects of one crystal.

    Attributes
    ----------
    defects
        The defects.
    limits
        Chemical potentials at which the crystal is in equilibrium with competing phases.
    above_hull
        Energy of the crystal above the hull of the competing phases, eV/atom.
    corrections
        Correction of an atom of each element in the crystal, eV, see `defects`.
    supercell
        Vectors of the supercell in those of the relaxed crystal, as rows, shape (3, 3).
    image_distance
        Shortest distance of a defect from its periodic image, Å.
    nsites_supercell
        Number of atoms in the supercell without a defect.
    """

    defects: tuple[PointDefect, ...] = ()
    limits: tuple[Limit, ...] = ()
    above_hull: float | None = None
    corrections: Mapping[str, float] | None = None
    supercell: NDArray[np.int64] | None = None
    image_distance: float | None = None
    nsites_supercell: int | None = None

    @property
    def lowest(self) -> PointDefect | None:
        """The defect with the lowest formation energy."""
        known = [defect for defect in self.defects if defect.lowest is not None]
        return min(known, key=lambda defect: cast("float", defect.lowest), default=None)


@dataclass(frozen=True, eq=False)
class _Plan:
    """Cells of one crystal."""

    perfect: Structure
    defects: list[PointDefect]
    limits: tuple[Limit, ...]
    above_hull: float
    corrections: dict[str, float]
    supercell: NDArray[np.int64]
    warnings: tuple[str, ...]


def defects(
    structures: Iterable[Structure | Atoms],
    potential: Potential | ModelInterface,
    *,
    kinds: Sequence[DefectKind] = KINDS,
    competing: Iterable[Structure | Atoms | ComputedEntry] = (),
    correct: Correct | None = None,
    min_length: float = 10.0,
    fmax: float = 0.01,
    max_steps: int = 500,
    optimizer: OptimizerName = "lbfgs",
    pressure: float = 0.0,
    journal_dir: Path | None = None,
    progress: bool = False,
) -> list[DefectsRecord]:
    r"""
    Compute formation energies of the symmetry-distinct neutral point defects of many crystals.

    The crystals relax. Their distinct vacancies and antisites, and interstitials on the Voronoi nodes between the
    atoms, are found by pymatgen-analysis-defects and placed in supercells, in which the atoms relax. The supercells of
    all crystals are computed together. The formation energy of a defect that adds :math:`n_i` atoms of element *i* is
    (C. Freysoldt et al., Rev. Mod. Phys. 86, 253 (2014), without charges)

    .. math:: E_f = E_\mathrm{defect} - E_\mathrm{crystal} - \sum_i n_i \mu_i

    at each corner of the region of chemical potentials in which the crystal is stable.

    Parameters
    ----------
    structures
        Crystals.
    potential
        A loaded potential or any torch-sim model.
    kinds
        Kinds of defects; a crystal of one element has no antisites.
    competing
        Phases that compete with the crystals: structures, which are relaxed like the crystals, or entries with energies
        that are comparable with those of the potential after `correct`. A crystal of one element is its own reference
        if there are none.
    correct
        Makes the corrected entry of a crystal from its structure and its energy (eV), so that it is comparable with
        compounds and elements that have other corrections. By default there are no corrections.
    min_length
        Minimum distance between opposite faces of the supercells, Å: minimum distance of a defect from its images.
    fmax
        Bound on all forces, eV/Å.
    max_steps
        Maximum number of steps of a relaxation.
    optimizer
        Of the relaxations, ``"lbfgs"`` or ``"fire"``; see `matris.relax`.
    pressure
        External pressure on crystals and competing phases, GPa; supercells keep their lattice.
    journal_dir
        Folder in which relaxed cells are kept, so that a killed run resumes.
    progress
        Whether to show progress bars on standard error.

    Returns
    -------
    list of DefectsRecord
        One for each crystal, in order.

    Raises
    ------
    ValueError
        If there are no kinds, or an unknown one.
    MatrisError
        If pymatgen-analysis-defects is not installed.

    Examples
    --------
    The vacancy of copper. The model here is effective-medium theory; ``matris.load()`` gives a better one.

    >>> from ase.build import bulk
    >>> from ase.calculators.emt import EMT
    >>> import matris
    >>> model = matris.AseModel(EMT())
    >>> (record,) = defects([bulk("Cu")], model, kinds=["vacancy"], min_length=7)  # doctest: +SKIP
    >>> record.lowest.name, round(record.lowest.lowest, 2)  # doctest: +SKIP
    ('v_Cu', 1.23)
    """
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        raise ValueError(f"kinds must be some of {', '.join(KINDS)}, got {', '.join(unknown) or 'none'}")
    require_defects()
    relaxer = Relaxer(potential, fmax, max_steps, journal_dir, optimizer, progress, pressure=pressure)
    crystals, phases = list(one_or_many(structures)), list(competing)
    computed = [phase for phase in phases if not isinstance(phase, ComputedEntry)]
    records = relaxer.materials([*crystals, *computed])
    entry_of = correct or _uncorrected
    entries = [phase for phase in phases if isinstance(phase, ComputedEntry)]
    problems: list[tuple[set[str], str]] = []
    for record, phase in zip(records[len(crystals) :], computed, strict=True):
        entry, error = attempt(_entry, record, entry_of, pressure)
        if entry is None:
            problems.append((_elements(phase), f"{''.join(sorted(_elements(phase)))}: {error}"))
        else:
            entries.append(entry)

    def plan(start: RelaxRecord) -> _Plan:
        own = _entry(start, entry_of, pressure)
        elements = {element.symbol for element in own.composition.elements}
        lost = [f"a competing phase could not be computed: {text}" for part, text in problems if part <= elements]
        return _planned(start, own, entries, kinds, min_length, lost)

    def compute(plans: list[_Plan | None]) -> list[list[RelaxRecord]]:
        return relaxer.groups([[p.perfect, *(d.cell for d in p.defects)] if p else [] for p in plans])

    return derive(DefectsRecord, records[: len(crystals)], plan, compute, _record)


def _elements(phase: Structure | Atoms) -> set[str]:
    """Symbols of the elements of a phase."""
    if isinstance(phase, Structure):
        return {element.symbol for element in phase.composition.element_composition.elements}
    return set(phase.get_chemical_symbols())


def _uncorrected(structure: Structure, energy: float) -> ComputedEntry:
    return ComputedEntry(structure.composition.element_composition, energy)


def _entry(record: RelaxRecord, entry_of: Correct, pressure: float) -> ComputedEntry:
    """
    Make the entry of a relaxed phase.

    Raises
    ------
    UnusableCellError
        If it could not be relaxed.
    """
    energy = record.enthalpy(pressure)
    if record.structure is None or energy is None:
        raise UnusableCellError(record.error or "no energy")
    return entry_of(record.structure, energy)


def _planned(
    start: RelaxRecord,
    own: ComputedEntry,
    competing: Sequence[ComputedEntry],
    kinds: Sequence[DefectKind],
    min_length: float,
    lost: Sequence[str],
) -> _Plan:
    """Find chemical potentials and defects of a relaxed crystal."""
    relaxed = cast("Structure", start.structure)
    if gap := vacuum_warning(relaxed):
        raise UnusableCellError(f"no crystal, so that it has no point defects: {gap}")
    # with neither charges nor isotopes; pymatgen-analysis-defects leaves out atoms outside the cell, even by 1e-17
    elements = [Element.from_Z(site.specie.Z) for site in relaxed]
    crystal = Structure(relaxed.lattice, elements, np.mod(relaxed.frac_coords, 1.0))
    potentials = chemical_potentials(own, competing)
    warnings = list(lost)
    if potentials.above_hull > SAME_ENERGY:
        warnings.append(
            f"the crystal is {1e3 * potentials.above_hull:.0f} meV/atom above the hull of the competing phases: there "
            "are no chemical potentials at which it is stable"
        )
    if own.data.get("correction_state") == "undecided":
        warnings.append("the corrections of the energy are undecided, because the oxidation states are not known")
    matrix = supercell_matrix(crystal, min_length, _SYMPREC).T
    perfect = crystal.make_supercell(matrix, in_place=False)
    if len(perfect) == 1:
        raise UnusableCellError(f"the supercell has one atom: a min_length of {min_length:g} Å is too short")
    found = list(_found(crystal, kinds))
    nowhere = [kind for kind in kinds if kind not in {defect["kind"] for defect in found}]
    if not found:
        raise UnusableCellError(f"no {' or '.join(f'{kind} sites' for kind in nowhere)} were found")
    if "interstitial" in nowhere:
        warnings.append("no interstitial sites were found")
    return _Plan(
        perfect,
        [_placed(each, perfect, matrix) for each in _numbered(found)],
        potentials.limits,
        potentials.above_hull,
        corrections_per_atom(own),
        matrix,
        tuple(warnings),
    )


def _found(crystal: Structure, kinds: Sequence[DefectKind]) -> Iterator[dict[str, Any]]:
    """Yield the distinct defects of a crystal: name, kind, change, site and multiplicity."""
    from pymatgen.analysis.defects import generators

    elements = sorted(element.symbol for element in crystal.composition.elements)
    for kind in KINDS:
        if kind not in kinds:
            continue
        if kind == "vacancy":
            several = generators.VacancyGenerator(symprec=_SYMPREC).get_defects(crystal, **_NEUTRAL)
        elif kind == "antisite":
            several = generators.AntiSiteGenerator(symprec=_SYMPREC).get_defects(crystal, **_NEUTRAL)
        else:
            several = _interstitials(crystal, elements)
        of_kind = []
        for defect in several:
            site, symbol = defect.site.frac_coords, defect.site.specie.symbol
            index, distance = _nearest(crystal, site)
            removed = crystal[index].specie.symbol
            change = {"vacancy": {symbol: -1}, "antisite": {removed: -1, symbol: 1}, "interstitial": {symbol: 1}}[kind]
            found = {
                "name": defect.name,
                "kind": kind,
                "change": change,
                "site": tuple(float(x) for x in site),
                "multiplicity": int(defect.multiplicity),
            }
            of_kind.append(((defect.name, found["multiplicity"], round(distance, 2), *np.round(site, 3)), found))
        yield from (found for _, found in sorted(of_kind, key=lambda pair: pair[0]))


def _nearest(structure: Structure, site: NDArray[np.float64]) -> tuple[int, float]:
    """Index of the atom next to a site (fractional coordinates), and its distance, Å."""
    distances = structure.lattice.get_all_distances([site], structure.frac_coords)[0]
    return int(np.argmin(distances)), float(distances.min())


def _interstitials(crystal: Structure, elements: list[str]) -> list[Any]:
    """Interstitials on the distinct Voronoi nodes; none if all nodes are too close to atoms."""
    from pymatgen.analysis.defects.generators import VoronoiInterstitialGenerator

    generator = VoronoiInterstitialGenerator()
    if next(generator._get_candidate_sites(crystal), None) is None:  # noqa: SLF001 - get_defects would not stand it
        return []
    return generator.get_defects(crystal, elements, **_NEUTRAL)


def _numbered(found: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Give numbers to defects of the same name."""
    totals, seen = Counter(each["name"] for each in found), Counter[str]()
    for each in found:
        name = each["name"]
        seen[name] += 1
        yield each | {"name": f"{name} ({seen[name]})" if totals[name] > 1 else name}


def _placed(found: dict[str, Any], perfect: Structure, matrix: NDArray[np.int64]) -> PointDefect:
    """Place a defect in the supercell, and displace its neighbors a little."""
    site = np.array(found["site"]) @ np.linalg.inv(matrix)
    cell = perfect.copy()
    added = [symbol for symbol, n in found["change"].items() if n > 0]
    if found["kind"] != "interstitial":
        index, _ = _nearest(perfect, site)
        if found["kind"] == "vacancy":
            cell.remove_sites([index])
        else:
            cell.replace(index, Element(added[0]))
    else:
        cell.append(Element(added[0]), site)
    return PointDefect(**found, cell=_kicked(cell, site))


def _kicked(cell: Structure, site: NDArray[np.float64]) -> Structure:
    """Displace the atoms around a site in random directions, always the same ones."""
    directions = np.random.default_rng(0).normal(size=(len(cell), 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    near = cell.lattice.get_all_distances([site], cell.frac_coords)[0] < _NEIGHBORS
    coords = cell.cart_coords + _KICK * directions * near[:, None]
    return Structure(cell.lattice, cell.species, coords, coords_are_cartesian=True)


def _record(start: RelaxRecord, plan: _Plan, cells: list[RelaxRecord]) -> DefectsRecord:
    """Describe the defects of one crystal."""
    perfect, *others = cells
    check_cells([perfect], ["the supercell without a defect"])
    done = [_formed(defect, cell, perfect, plan) for defect, cell in zip(plan.defects, others, strict=True)]
    if all(defect.state == "failed" for defect in done):
        raise UnusableCellError(f"{done[0].name}: {done[0].error}")
    late = start.state != "converged" or any(defect.state != "converged" for defect in done)
    negative = [
        f"{defect.name} ({defect.lowest:.2f} eV)" for defect in done if defect.lowest is not None and defect.lowest < 0
    ]
    remarks = [
        f"{defect.name}: {text}"
        for defect in done
        for text in (*([defect.error] if defect.error else []), *defect.warnings)
    ]
    if negative:
        remarks.append(f"negative formation energies at some chemical potentials: {', '.join(negative)}")
    unconverged = [] if start.state == "converged" else ["not below fmax: the relaxed crystal"]
    return DefectsRecord(
        index=start.index,
        state="max_steps" if late else "converged",
        structure=start.structure,
        warnings=(*plan.warnings, *remarks, *unconverged, *_same(done)),
        is_reliable=not late and not negative and plan.above_hull <= SAME_ENERGY,
        defects=tuple(done),
        limits=plan.limits,
        above_hull=plan.above_hull,
        corrections=plan.corrections,
        supercell=plan.supercell,
        image_distance=float(min(plan.perfect.lattice.get_lll_reduced_lattice().abc)),
        nsites_supercell=len(plan.perfect),
    )


def _formed(defect: PointDefect, cell: RelaxRecord, perfect: RelaxRecord, plan: _Plan) -> PointDefect:
    """Add the results of the relaxation to a defect."""
    if cell.state == "failed" or cell.structure is None or cell.energy is None:
        return replace(defect, state="failed", error=cell.error)
    change = cell.energy - cast("float", perfect.energy)
    corrected = change + sum(n * plan.corrections.get(symbol, 0.0) for symbol, n in defect.change.items())
    energies = tuple(
        corrected - sum(n * limit.potentials[symbol] for symbol, n in defect.change.items()) for limit in plan.limits
    )
    moves = cell.structure.frac_coords - defect.cell.frac_coords
    lengths = np.linalg.norm((moves - moves.round()) @ cell.structure.lattice.matrix, axis=1)
    warnings = () if cell.state == "converged" else ("not below fmax",)
    return replace(
        defect,
        cell=cell.structure,
        state=cell.state,
        energy_change=change,
        formation_energies=energies,
        displacement=float(lengths.max()),
        warnings=warnings,
    )


def _same(done: Sequence[PointDefect]) -> Iterator[str]:
    """Say which defects of one name relax to the same energy."""
    for number, one in enumerate(done):
        for other in done[:number]:
            if one.change != other.change or one.energy_change is None or other.energy_change is None:
                continue
            if abs(one.energy_change - other.energy_change) < _EQUAL:
                yield f"{other.name} and {one.name} relax to the same energy"
                break


def require_defects() -> None:
    """
    Check that defects can be found.

    Raises
    ------
    MatrisError
        If pymatgen-analysis-defects is not installed.
    """
    require("pymatgen.analysis.defects.generators", "point defects need pymatgen-analysis-defects", "defects")
