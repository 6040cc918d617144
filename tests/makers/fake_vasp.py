"""
A program that reads the inputs of VASP and writes its outputs, with results that a formula gives.

Runs in a folder with POSCAR, INCAR and POTCAR.spec, as ``python fake_vasp.py``; FAKE_VASP_FAULT names what goes wrong.
It needs no package, so that it starts quickly.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

BULK_MODULUS = 0.5  # eV/Å³
KBAR = 1602.1766208  # kbar in one eV/Å³

TITLES = {
    "Fe_pv": "PAW_PBE Fe_pv 06Sep2000",
    "O": "PAW_PBE O 08Apr2002",
    "Mg_pv": "PAW_PBE Mg_pv 06Sep2000",
    "Cs_sv": "PAW_PBE Cs_sv 08Apr2002",
    "Cl": "PAW_PBE Cl 17Jan2003",
    "Al": "PAW_PBE Al 04Jan2001",
    "Ni_pv": "PAW_PBE Ni_pv 06Sep2000",
}

type Matrix = list[list[float]]


def volume_of(cell: Matrix) -> float:
    (a, b, c), (d, e, f), (g, h, i) = cell
    return abs(a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g))


def energy_of(n_atoms: int, volume: float) -> float:
    """Energy for σ → 0, eV: a parabola of the volume with its minimum at 12 Å³ per atom."""
    best = 12.0 * n_atoms
    return -5.0 * n_atoms + BULK_MODULUS * (volume - best) ** 2 / (2 * best)


def stress_of(n_atoms: int, volume: float) -> Matrix:
    """Stress dE/dV, eV/Å³: positive under tension, that is for volumes above the best one."""
    best = 12.0 * n_atoms
    pressure = BULK_MODULUS * (volume - best) / best
    return [[pressure if i == j else 0.0 for j in range(3)] for i in range(3)]


def forces_of(n_atoms: int) -> Matrix:
    """Forces, eV/Å: another one for each atom; they add up to zero."""
    forces = [[0.01 * (i + 1), -0.002 * i, 0.0] for i in range(n_atoms)]
    mean = [sum(force[axis] for force in forces) / n_atoms for axis in range(3)]
    return [[round(force[axis] - mean[axis], 8) for axis in range(3)] for force in forces]


def magmoms_of(n_atoms: int) -> list[float]:
    """Moments, μB: another one for each atom, of both signs."""
    return [round((-1) ** i * (3.5 - 0.25 * i), 3) for i in range(n_atoms)]


def main() -> None:
    fault = os.environ.get("FAKE_VASP_FAULT", "")
    if fault == "crash":
        sys.exit("the fake VASP crashes")
    incar = read_incar()
    cell, symbols, places = read_poscar()
    titles = [TITLES[name] for name in Path("POTCAR.spec").read_text().split()]
    scales = [1.0, 0.99] if int(incar.get("NSW", 0)) > 0 else [1.0]
    limit = int(incar.get("NELM", 60))
    electronic = limit if fault == "unconverged" else 2
    steps = [([[scale * x for x in vector] for vector in cell], electronic) for scale in scales]
    if fault == "first step":
        steps[0] = (steps[0][0], limit)
    with Path("vasprun.xml").open("w") as xml:
        write_vasprun(xml, incar, symbols, titles, places, steps, with_forces=fault != "no forces")
    Path("OUTCAR").write_text(outcar(len(symbols)))
    header = Path("POSCAR").read_text().splitlines()
    contcar = ["fake", "1.0", *(" ".join(f"{x:.16f}" for x in v) for v in steps[-1][0]), *header[5:]]
    Path("CONTCAR").write_text("\n".join(contcar) + "\n")
    Path("OSZICAR").write_text("   1 F= -.1E+02 E0= -.1E+02  d E =0.0\n")
    for name in ("WAVECAR", "CHGCAR", "IBZKPT", "EIGENVAL", "DOSCAR"):
        Path(name).touch()


def read_incar() -> dict[str, str]:
    lines = (line.partition("=") for line in Path("INCAR").read_text().splitlines() if "=" in line)
    return {key.strip(): value.strip() for key, _, value in lines}


def read_poscar() -> tuple[Matrix, list[str], Matrix]:
    lines = Path("POSCAR").read_text().splitlines()
    cell = [[float(lines[1]) * float(x) for x in line.split()] for line in lines[2:5]]
    symbols = [s for s, n in zip(lines[5].split(), lines[6].split(), strict=True) for _ in range(int(n))]
    places = [[float(x) for x in line.split()[:3]] for line in lines[8 : 8 + len(symbols)]]
    return cell, symbols, places


def vectors(name: str, rows: Matrix) -> str:
    return (
        f'<varray name="{name}">' + "".join(f"<v>{' '.join(f'{x:.8f}' for x in row)}</v>" for row in rows) + "</varray>"
    )


def structure(cell: Matrix, places: Matrix, name: str = "") -> str:
    identity = [[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]]
    crystal = f'{vectors("basis", cell)}<i name="volume">{volume_of(cell):.8f}</i>{vectors("rec_basis", identity)}'
    return f'<structure name="{name}"><crystal>{crystal}</crystal>{vectors("positions", places)}</structure>'


def setting(key: str, value: str) -> str:
    words = value.split()
    if value.strip(".").lower() in {"true", "false"}:
        return f'<i type="logical" name="{key}">{value.strip(".")[0].upper()}</i>'
    if len(words) > 1 or key.startswith(("LDAUU", "LDAUJ", "LDAUL", "MAGMOM")):
        kind = ' type="int"' if key == "LDAUL" else ""
        counts = (word.rpartition("*") for word in words)
        spread = [x for n, _, x in counts for _ in range(int(n or 1))]
        return f'<v{kind} name="{key}">{" ".join(spread)}</v>'
    if value.lstrip("-").isdigit():
        return f'<i type="int" name="{key}">{value}</i>'
    try:
        float(value)
    except ValueError:
        return f'<i type="string" name="{key}">{value}</i>'
    return f'<i name="{key}">{value}</i>'


def energies(zero: float, entropy: float = -0.004) -> str:
    """Free energy, energy without entropy, and energy for σ → 0, between both."""
    values = {"e_fr_energy": zero + entropy, "e_wo_entrp": zero - entropy, "e_0_energy": zero}
    return "<energy>" + "".join(f'<i name="{key}">{value:.8f}</i>' for key, value in values.items()) + "</energy>"


def wrong_energies(zero: float, entropy: float = -0.004) -> str:
    """Energies of an ionic step as VASP 5 writes them: that for σ → 0 is the one without entropy."""
    values = {"e_fr_energy": zero + entropy, "e_wo_entrp": zero - entropy, "e_0_energy": zero - entropy}
    return "<energy>" + "".join(f'<i name="{key}">{value:.8f}</i>' for key, value in values.items()) + "</energy>"


def write_vasprun(xml, incar, symbols, titles, places, steps, *, with_forces: bool) -> None:
    n = len(symbols)
    kinds = list(dict.fromkeys(symbols))
    defaults = {"GGA": "--" if "METAGGA" in incar else incar.get("GGA", "PE"), "ENMAX": incar["ENCUT"], "NELM": "60"}
    defaults |= {
        "NSW": "0",
        "IBRION": "-1",
        "ISPIN": "1",
        "LSORBIT": "False",
        "NELECT": "20.0",
        "ISIF": "2",
        "ISYM": "2",
    }
    defaults |= {"EDIFF": "0.0001", "EDIFFG": "0.001", "POTIM": "0.5", "LHFCALC": "False", "LDAU": "False"}
    defaults |= {"LORBIT": "11", "NBANDS": "2", "NEDOS": "3", "SIGMA": "0.05", "ISMEAR": "0", "METAGGA": "--"}
    parameters = defaults | {key: value for key, value in incar.items() if not key.startswith("LDAU") or key == "LDAU"}
    write = xml.write
    write('<?xml version="1.0" encoding="ISO-8859-1"?><modeling><generator>')
    write('<i name="program" type="string">vasp</i><i name="version" type="string">5.4.4</i>')
    write('<i name="subversion" type="string">fake</i><i name="platform" type="string">fake</i>')
    write('<i name="date" type="string">2026 01 01</i><i name="time" type="string">00:00:00</i></generator>')
    write("<incar>" + "".join(setting(*each) for each in incar.items()) + "</incar>")
    write('<kpoints><generation param="Gamma"><v type="int" name="divisions">1 1 1</v>')
    write('<v name="usershift">0 0 0</v></generation>')
    write(vectors("kpointlist", [[0, 0, 0]]) + '<varray name="weights"><v>1.0</v></varray></kpoints>')
    write("<parameters>" + "".join(setting(*each) for each in parameters.items()) + "</parameters>")
    write(f"<atominfo><atoms>{n}</atoms><types>{len(kinds)}</types>")
    rows = "".join(f"<rc><c>{s}</c><c>{kinds.index(s) + 1}</c></rc>" for s in symbols)
    write(f'<array name="atoms"><dimension dim="1">ion</dimension><set>{rows}</set></array>')
    rows = "".join(
        f"<rc><c>{symbols.count(s)}</c><c>{s}</c><c>50.0</c><c>10.0</c><c>{t:40s}</c></rc>"
        for s, t in zip(kinds, titles, strict=True)
    )
    write(f'<array name="atomtypes"><dimension dim="1">type</dimension><set>{rows}</set></array></atominfo>')
    write(structure(steps[0][0], places, "initialpos"))
    for number, (cell, n_electronic) in enumerate(steps):
        zero = energy_of(n, volume_of(cell))
        write("<calculation>")
        for left in range(n_electronic, 0, -1):
            write(f"<scstep>{energies(zero + 0.1 * (left - 1))}</scstep>")
        write(structure(cell, places))
        if with_forces:
            write(vectors("forces", forces_of(n)))
        kbar = [[-KBAR * x for x in row] for row in stress_of(n, volume_of(cell))]
        write(vectors("stress", kbar) + wrong_energies(zero))
        if number == len(steps) - 1:
            levels = '<set comment="kpoint 1"><r>-1.0 1.0</r><r>3.0 0.0</r></set>'
            spins = "".join(f'<set comment="spin {spin}">{levels}</set>' for spin in (1, 2))
            write(f'<eigenvalues><array><dimension dim="1">band</dimension><set>{spins}</set></array></eigenvalues>')
            table = "<r>-2.0 0.0 0.0</r><r>0.0 1.0 1.0</r><r>4.0 0.0 2.0</r>"
            spins = "".join(f'<set comment="spin {spin}">{table}</set>' for spin in (1, 2))
            write(f'<dos><i name="efermi">0.5</i><total><array><set>{spins}</set></array></total></dos>')
        write("</calculation>")
    write(structure(steps[-1][0], places, "finalpos") + "</modeling>")


def outcar(n: int) -> str:
    moments = magmoms_of(n)
    rows = "\n".join(f"{i + 1:5d}      0.000   0.000  {m:6.3f}  {m:6.3f}" for i, m in enumerate(moments))
    line = "--------------------------------------------------"
    times = (
        "Total CPU time used", "User time", "System time", "Elapsed time",
    )  # fmt: skip
    return (
        " vasp.5.4.4 fake\n running on    1 total cores\n   NELECT =      20.0000    total number of electrons\n"
        "   k-points           NKPTS =      1   number of bands    NBANDS=      2\n"
        "   IBRION =     -1    ionic relax\n   ISPIN  =      2\n"
        "   total plane-waves  NPLWV =   1000\n E-fermi :   0.5000     XC(G=0):  -9.0     alpha+bet : -8.0\n"
        f" number of electron      20.0000000 magnetization      {sum(moments):.7f}\n"
        f"\n magnetization (x)\n\n# of ion       s       p       d       tot\n{line}\n{rows}\n{line}\n"
        f"tot        0.000   0.000  {sum(moments):6.3f}  {sum(moments):6.3f}\n\n"
        " General timing and accounting informations for this job:\n ========================================\n"
        + "".join(f"{name:>35} (sec):        1.000\n" for name in times)
        + "                  Maximum memory used (kb):       10000.\n"
        + "                  Average memory used (kb):           0.\n"
    )


if __name__ == "__main__":
    main()
