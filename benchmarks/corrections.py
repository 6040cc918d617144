"""
Compare energy corrections with pymatgen's and fairchem's: ``python benchmarks/corrections.py --data FOLDER``.

Every entry of ``li_fe_o_entries.json.gz`` and every crystal of ``wbm_equilibrium.json.gz`` is corrected by
`matris.stores.documents.corrections`, from tables, and by pymatgen's MaterialsProject2020Compatibility, with the
Hubbard U of the VASP input set that MPRelaxSet makes for the crystal. If ``fairchem-data-omat`` is installed
(``pip install --no-deps fairchem-data-omat==0.2.0``), the same crystals are corrected for OMat24 by fairchem's scheme.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pymatgen.core import Structure
from pymatgen.entries.compatibility import MaterialsProject2020Compatibility
from pymatgen.entries.computed_entries import ComputedStructureEntry
from pymatgen.io.vasp.sets import MPRelaxSet

from matris.stores.documents.corrections import corrected_entry
from matris.stores.hull.references import load_references

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def by_input_set(structure: Structure, energy: float) -> float:
    """Correct by pymatgen, with the parameters of a VASP input set; return the corrected energy (eV)."""
    inputs = MPRelaxSet(structure, user_potcar_functional="PBE")
    values = inputs.incar.get("LDAUU", [])
    hubbards = {s: u for s, u in zip(inputs.poscar.site_symbols, values, strict=False) if u}
    parameters = {"run_type": "GGA+U" if hubbards else "GGA", "hubbards": hubbards}
    entry = ComputedStructureEntry(structure, energy, parameters=parameters)
    done = MaterialsProject2020Compatibility(check_potcar=False).process_entry(entry, clean=True)
    assert done is not None, structure.formula
    return float(done.energy)


def by_fairchem(structure: Structure, energy: float) -> float:
    """
    Correct by fairchem's class, with the parameters of its input set; return the corrected energy (eV).

    Its function ``generate_computed_structure_entry`` guesses oxidation states for the whole cell, so that they depend
    on the number of formula units. The class guesses them for the formula, as pymatgen does.
    """
    from fairchem.data.omat.entries.compatibility import OMat24Compatibility, generate_cse_parameters
    from fairchem.data.omat.vasp.sets import OMat24StaticSet

    entry = ComputedStructureEntry(structure, energy, parameters=generate_cse_parameters(OMat24StaticSet(structure)))
    done = OMat24Compatibility(check_potcar=False).process_entry(entry, clean=True)
    assert done is not None, structure.formula
    return float(done.energy)


def entries_of_a_file(path: Path) -> str:
    """Compare the corrections of a reference set read from a file."""
    items = json.loads(gzip.decompress(path.read_bytes()))
    peers = MaterialsProject2020Compatibility(check_potcar=False).process_entries(
        [ComputedStructureEntry.from_dict(item) for item in items], clean=True
    )
    ours = {entry.entry_id: entry for entry in load_references(path, "mp").entries}
    assert ours.keys() == {entry.entry_id for entry in peers}
    difference = max(abs(ours[e.entry_id].energy_per_atom - e.energy_per_atom) for e in peers)
    return f"| {path.name}, as references | MP2020 | pymatgen | {len(peers)} of {len(items)} | {difference:.1e} | | |"


def crystals(
    name: str,
    rows: Sequence[tuple[Structure, float]],
    scale: str,
    peer: tuple[str, Callable[[Structure, float], float]],
) -> str:
    """Compare the corrections of crystals, as for energies computed by a checkpoint."""
    started = time.perf_counter()
    ours = [corrected_entry(structure, energy, scale).energy for structure, energy in rows]
    between = time.perf_counter()
    theirs = [peer[1](structure, energy) for structure, energy in rows]
    seconds = time.perf_counter() - between
    difference = max(abs(a - b) / len(s) for a, b, (s, _) in zip(ours, theirs, rows, strict=True))
    changed = sum(abs(a - e) > 0 for a, (_, e) in zip(ours, rows, strict=True))
    scheme = {"mp": "MP2020", "omat24": "OMat24"}[scale]
    return (
        f"| {name}, as computed ({changed} corrected) | {scheme} | {peer[0]} | {len(rows)} | {difference:.1e} "
        f"| {(between - started) / len(rows) * 1e3:.1f} | {seconds / len(rows) * 1e3:.1f} |"
    )


def read(path: Path) -> list[tuple[Structure, float]]:
    """Read crystals and uncorrected energies (eV)."""
    items: list[dict[str, Any]] = json.loads(gzip.decompress(path.read_bytes()))
    return [(Structure.from_dict(item["structure"]), float(item["energy"])) for item in items]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with li_fe_o_entries and wbm_equilibrium")
    data = parser.parse_args().data
    warnings.simplefilter("ignore")  # input sets and guesses of oxidation states warn often
    print("| crystals | scheme | compared with | number | largest difference (eV/atom) | ms, ours | ms, theirs |")
    print("|---|---|---|---|---|---|---|")
    print(entries_of_a_file(data / "li_fe_o_entries.json.gz"), flush=True)
    pymatgen = ("pymatgen with MPRelaxSet", by_input_set)
    for name in ("li_fe_o_entries.json.gz", "wbm_equilibrium.json.gz"):
        rows = read(data / name)
        print(crystals(name, rows, "mp", pymatgen), flush=True)
        if find_spec("fairchem") is not None:
            print(crystals(name, rows, "omat24", ("fairchem-data-omat", by_fairchem)), flush=True)


if __name__ == "__main__":
    main()
