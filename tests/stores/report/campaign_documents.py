"""Documents of a campaign that never was: of any number, always the same, with all that may become of a candidate."""

from __future__ import annotations

import math
import random
from functools import cache
from typing import TYPE_CHECKING, Any

from pymatgen.core import Composition, Lattice, Structure

if TYPE_CHECKING:
    from collections.abc import Iterator

WINDOW = 0.1
CHECKPOINT = {"key": "tiny", "sha256": "ab" * 32, "energy_scale": "mp"}
SETTINGS = {"fmax": 0.05, "max_steps": 500, "relax_cell": True, "digest": "0" * 12, "first": None}

_TERNARY = ("Li2O", "FeO", "Fe2O3", "Fe3O4", "LiFeO2", "Li5FeO4", "LiFe5O8", "LiFe", "Li3Fe", "Li2FeO3", "LiFe2O4")
_METALS = ("Na", "K", "Mg", "Ca", "Sr", "Sc", "Ti", "V", "Cr", "Mn", "Co", "Ni", "Cu", "Zn", "Y", "Nb", "La", "Al")
_ANIONS = ["O", "S", "F", "Cl", "Br", "N"]
_BROKEN = (
    ("rejected", "reading", "unreadable CIF: no <block> & nothing else", None),
    ("rejected", "sanity", "atoms too close: sites 0 (Fe) and 1 (O) are 0.20 Å apart, 0.11 of the sum", None),
    ("rejected", "sanity", "disordered site 2 (Fe:0.5, Li:0.5): order it first", None),
    ("rejected", "chemistry", "no charge balance: it has no neutral choice of common oxidation states", None),
    ("duplicate", "duplicates", "equal to candidate 00000000000000000000", "0" * 20),
    ("failed", "relaxation", "the cell exploded: volume 5.31 times larger", None),
    ("failed", "relaxation", "out of memory: 900 atoms are too many for cuda:0, even alone", None),
    ("max_steps", "relaxation", None, None),
)


def campaign_documents(n: int) -> Iterator[dict[str, Any]]:
    """Candidates, a quarter of them lost on the way, half of them in Li-Fe-O; before them the elements."""
    for number, symbol in enumerate(("Li", "Fe", "O")):
        yield document(10**9 + number, symbol, 0.0, source="elemental reference")
    dice = random.Random(1)
    for number in range(n):
        formula = dice.choice(_TERNARY) if dice.random() < 0.5 else _random_formula(dice)
        if dice.random() < 0.25:
            state, stage, error, other = dice.choice(_BROKEN)
            yield lost(number, formula, state=state, stage=stage, error=error, duplicate_of=other)
        else:
            height = 0.0 if dice.random() < 0.02 else dice.expovariate(6.0)
            yield document(number, formula, height, **_computed(dice, height))


def document(number: int, formula: str, height: float, **changes: Any) -> dict[str, Any]:
    """Relaxed candidate some eV/atom above the hull, which is the (convex) negative entropy of mixing."""
    about = _about(formula)
    identity = f"{number:020d}"
    return {
        "document_id": f"{identity}-abababab-00000000",
        "candidate_id": identity,
        "source": f"in/<{formula}> & {number}.cif",
        "provenance": {},
        "state": "converged",
        "stage": None if height <= WINDOW else "hull window",
        "error": None,
        "duplicate_of": None,
        **about,
        "nsites": int(sum(about["composition_reduced"].values())),
        "volume": 60.0,
        "density": 4.2,
        "volume_change": 0.02,
        "symmetry": {"crystal_system": "Cubic", "symbol": "Fm-3m", "number": 225, "symprec": 0.1},
        "energy_per_atom": -4.0 + _entropy(formula) + height,
        "correction_scheme": "MaterialsProject2020Compatibility",
        "hull_type": "self-consistent",
        "hull_reference": "all of <them>",
        "hull_state": "ok",
        "formation_energy_per_atom": _entropy(formula) + height,
        "energy_above_hull": height,
        "is_stable": height <= 0,
        "decomposes_to": [{"formula": symbol, "amount": 0.5} for symbol in about["elements"]],
        "elastic": None,
        "phonon": None,
        "n_steps": 40,
        "fmax": 0.01,
        "seconds": 1.5,
        "checkpoint": CHECKPOINT,
        "settings": SETTINGS,
        "versions": {"torch": "2.11"},
        "device": "cuda:0",
        "dtype": "float32",
        **changes,
    }


def lost(number: int, formula: str, **changes: Any) -> dict[str, Any]:
    """Candidate without results."""
    names = "volume density volume_change symmetry energy_per_atom correction_scheme hull_type hull_reference"
    names += " formation_energy_per_atom energy_above_hull is_stable decomposes_to n_steps seconds device dtype"
    nothing = dict.fromkeys(names.split(), None) | {"hull_state": "not converged"}
    if changes["state"] == "max_steps":
        nothing |= {"n_steps": 500, "fmax": 0.31}
    if changes.get("stage") == "reading":
        nothing |= {"formula_pretty": None, "chemsys": None, "elements": [], "nelements": 0}
    return document(number, formula, 0.0) | nothing | changes


def structure(formula: str) -> Structure:
    """Crystal of a formula: rock salt, antifluorite or perovskite if it fits, else atoms in a row."""
    composition = Composition(formula)
    symbols = [element.symbol for element in composition.elements]
    amounts = tuple(int(composition[symbol]) for symbol in symbols)
    face = [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
    if amounts == (1, 1):
        shifted = [[x + 0.5, y, z] for x, y, z in face]
        return Structure(Lattice.cubic(4.3), [symbols[0]] * 4 + [symbols[1]] * 4, face + shifted)
    if amounts == (2, 1):
        eighths = [[x, y, z] for x in (0.25, 0.75) for y in (0.25, 0.75) for z in (0.25, 0.75)]
        return Structure(Lattice.cubic(4.6), [symbols[0]] * 8 + [symbols[1]] * 4, eighths + face)
    if amounts == (1, 1, 3):
        places = [[0.5, 0.5, 0.5], *([0, 0, 0], [0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5])]
        return Structure(Lattice.cubic(3.9), [symbols[0], symbols[1], *[symbols[2]] * 3], places)
    listed = [symbol for symbol, amount in zip(symbols, amounts, strict=True) for _ in range(amount)]
    fractions = [[(0.31 * i) % 1, (0.57 * i) % 1, i / len(listed)] for i in range(len(listed))]
    return Structure(Lattice.hexagonal(5.0, 1.9 * len(listed)), listed, fractions)


def _computed(dice: random.Random, height: float) -> dict[str, Any]:
    """Fields of a relaxation, and properties of what is near the hull."""
    fields: dict[str, Any] = {
        "n_steps": int(dice.lognormvariate(3.5, 0.6)),
        "seconds": dice.lognormvariate(0.5, 0.5),
        "volume_change": dice.gauss(0.0, 0.03),
        "duplicate_of": "1" * 20 if dice.random() < 0.05 else None,
    }
    if height <= WINDOW:
        soft = dice.random() < 0.3
        fields["phonon"] = {
            "state": "converged",
            "has_imaginary_modes": soft,
            "min_frequency": -2.1 if soft else 0.0,
            "job_uuid": "job",
        }
        fields["elastic"] = {
            "state": "converged",
            "bulk_modulus": dice.uniform(20, 250),
            "shear_modulus": 40.0,
            "young_modulus": 90.0,
            "is_mechanically_stable": not soft,
        }
    return fields


def _random_formula(dice: random.Random) -> str:
    metals = sorted(dice.sample(_METALS, dice.choice((1, 1, 2, 2, 3))))
    amounts = [dice.randint(1, 3) for _ in metals]
    body = "".join(f"{metal}{amount}" for metal, amount in zip(metals, amounts, strict=True))
    return f"{body}{dice.choice(_ANIONS)}{dice.randint(1, 4)}"


@cache
def _about(formula: str) -> dict[str, Any]:
    composition = Composition(formula).reduced_composition
    elements = sorted(element.symbol for element in composition.elements)
    return {
        "formula_pretty": composition.reduced_formula,
        "chemsys": "-".join(elements),
        "elements": elements,
        "nelements": len(elements),
        "composition_reduced": composition.get_el_amt_dict(),
    }


@cache
def _entropy(formula: str) -> float:
    fractions = Composition(formula).fractional_composition.get_el_amt_dict().values()
    return 2.0 * sum(x * math.log(x) for x in fractions)
