"""Candidate documents as pymatgen's computed entries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pymatgen.core.composition import Composition

from matris.errors import MatrisError
from matris.stores.documents.corrections import MP2020, mp_parameters
from matris.stores.documents.documents import pressure_of
from matris.units import GPA

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pymatgen.core.structure import Structure
    from pymatgen.entries.computed_entries import ComputedEntry, ComputedStructureEntry

SCALE = "energy_scale"
"""Parameter of an entry that names the energy scale of its energy."""

PRESSURE = "pressure"
"""Parameter of an entry with the external pressure under which its cell was relaxed, GPa; zero where it lacks."""

WORK = "pressure times volume"
"""Name of the energy adjustment that makes the energy of an entry an enthalpy."""

_OXIDES = {"oxide", "peroxide", "superoxide", "ozonide"}
_DATA = (
    "candidate_id",
    "source",
    "state",
    "correction_state",
    "formation_energy_per_atom",
    "energy_above_hull",
    "hull_reference",
    "is_extrapolating",
)
"""Fields of a document that the data of an entry has."""


def uncorrected_entry(document: Mapping[str, Any]) -> ComputedEntry:
    """
    Make an entry without its corrections, for `matris.stores.hull.references.correct_references`.

    Parameters
    ----------
    document
        Candidate document with an energy.

    Returns
    -------
    ComputedEntry
        Its ``data`` has what corrections depend on: the types of its anions, and its oxidation states.
    """
    from pymatgen.entries.computed_entries import ComputedEntry

    composition = Composition(document["composition"])
    energy = document["uncorrected_energy_per_atom"] * composition.num_atoms
    parameters = {SCALE: document["checkpoint"][SCALE]}
    data = _anions(document)
    if pressure := pressure_of(document["settings"]):
        parameters[PRESSURE] = pressure
        data["volume"] = document["volume"]
    return ComputedEntry(composition, energy, parameters=parameters, data=data, entry_id=document["document_id"])


def add_work(entry: ComputedEntry, pressure: float) -> None:
    """
    Make the energy of a corrected entry an enthalpy.

    Parameters
    ----------
    entry
        Entry whose data has the ``volume`` of its cell (Å³); changed in place.
    pressure
        External pressure, GPa.

    Raises
    ------
    ValueError
        If the entry has no volume.

    Examples
    --------
    >>> from pymatgen.entries.computed_entries import ComputedEntry
    >>> entry = ComputedEntry("Cu", -3.7, data={"volume": 11.0})
    >>> add_work(entry, 10.0)
    >>> round(entry.energy, 3)
    -3.013
    """
    from pymatgen.entries.computed_entries import ConstantEnergyAdjustment

    volume = entry.data.get("volume")
    if not isinstance(volume, int | float) or not volume > 0:
        raise ValueError(f"it has no volume, so that its enthalpy at {pressure:g} GPa is not known")
    work = ConstantEnergyAdjustment(pressure / GPA * volume, name=WORK)
    entry.energy_adjustments = [*(each for each in entry.energy_adjustments if each.name != WORK), work]


def structure_entry(document: Mapping[str, Any], structure: Structure) -> ComputedStructureEntry:
    """
    Make an entry of a candidate, with the corrections that its document has.

    Parameters
    ----------
    document
        Candidate document with a corrected energy.
    structure
        Relaxed structure.

    Returns
    -------
    ComputedStructureEntry
        ``energy`` (eV) is corrected for the energy scale, and under a pressure the enthalpy; ``uncorrected_energy`` is
        the energy of the potential. The parameters name checkpoint, settings, energy scale and pressure, so that
        `load_references` reads the entry, and on the scale ``mp`` the run type and the Hubbard U, so that pymatgen's
        MaterialsProject2020Compatibility processes it.

    Raises
    ------
    MatrisError
        If the document has no corrected energy.

    Examples
    --------
    >>> from pymatgen.core import Lattice, Structure
    >>> salt = Structure(Lattice.cubic(4.12), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    >>> document = {
    ...     "document_id": "salt",
    ...     "energy": -6.5,
    ...     "energy_per_atom": -3.557,
    ...     "corrections": {"MP2020 anion correction (Cl)": -0.614},
    ...     "correction_scheme": "MaterialsProject2020Compatibility",
    ...     "checkpoint": {"key": "demo", "sha256": "0" * 64, "energy_scale": "mp"},
    ...     "settings": {"digest": "0" * 12},
    ... }
    >>> entry = structure_entry(document, salt)
    >>> round(entry.energy, 3), round(entry.energy_per_atom, 3), entry.parameters["run_type"]
    (-7.114, -3.557, 'GGA')
    """
    from pymatgen.entries.computed_entries import ComputedStructureEntry, ConstantEnergyAdjustment

    if document.get("energy") is None or document.get("energy_per_atom") is None:
        raise MatrisError(f"{document['document_id']} has no corrected energy: {document.get('correction_scheme')}")
    checkpoint = document["checkpoint"]
    parameters = {
        SCALE: checkpoint[SCALE],
        "checkpoint": checkpoint["key"],
        "checkpoint_sha256": checkpoint["sha256"],
        "settings": document["settings"]["digest"],
    }
    if checkpoint[SCALE] == "mp" and document.get("correction_scheme") == MP2020:
        parameters |= mp_parameters(structure.composition)
    adjustments = [ConstantEnergyAdjustment(value, name=name) for name, value in document["corrections"].items()]
    data = _anions(document) | {name: document[name] for name in _DATA if document.get(name) is not None}
    pressure = pressure_of(document["settings"])
    entry = ComputedStructureEntry(
        structure,
        document["energy"],
        energy_adjustments=adjustments,
        parameters=parameters,
        data=data,
        entry_id=document["document_id"],
    )
    if pressure:
        entry.parameters[PRESSURE] = pressure
        entry.data["volume"] = float(structure.volume)
        add_work(entry, pressure)
    return entry


def _anions(document: Mapping[str, Any]) -> dict[str, Any]:
    """Types of anions, by the names of the corrections, and oxidation states."""
    kinds = {name.rpartition("(")[2].rstrip(")") for name in document.get("corrections", {}) if "anion" in name}
    return {
        "sulfide_type": "sulfide" if "S" in kinds else "none",
        "oxide_type": next(iter(kinds & _OXIDES), None),
        "oxidation_states": document.get("oxidation_states"),
    }
