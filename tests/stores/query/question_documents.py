"""Documents to query: iron oxides and others, computed by two checkpoints, some of them failed."""

from datetime import timedelta

from pymatgen.core import Composition, Lattice, Structure

from matris.stores.documents.documents import CandidateDocument, utc_now

CHECKPOINTS = {"matris_10m_oam": "a" * 64, "matris_10m_omat": "b" * 64}
NOW = utc_now()

# candidate, formula, energy above the hull (eV/atom), bulk modulus (GPa), imaginary modes, age (days)
COMPUTED = [
    ("hematite", "Fe2O3", 0.0, 200.0, False, 0),
    ("magnetite", "Fe3O4", 0.0, 180.0, None, 3),
    ("wustite", "FeO", 0.03, 170.0, True, 3),
    ("odd", "Fe2O3", 0.3, 90.0, True, 3),
    ("lithia", "Li2O", 0.0, 80.0, False, 3),
    ("ferrite", "LiFeO2", 0.045, 150.0, False, 0),
    ("iron", "Fe", 0.0, None, None, 3),
]
LOST = [
    ("clash", "Fe2O3", "rejected", "overlapping atoms: 0.1 Å between 0 and 1"),
    ("crash", "CoO", "failed", "out of memory: 3 GB wanted"),
    ("clash2", "CoO", "rejected", "overlapping atoms: 0.2 Å between 0 and 3"),
    ("unread", None, "rejected", "the file is empty"),
]


def document(candidate, formula, key="matris_10m_oam", days=0, **fields):
    composition = Composition(formula) if formula else None
    described = {}
    if composition:
        described = {
            "formula_pretty": composition.reduced_formula,
            "chemsys": composition.chemical_system,
            "elements": sorted(composition.chemical_system_set),
            "nelements": len(composition),
            "nsites": int(composition.num_atoms),
        }
    made = CandidateDocument(
        document_id=f"{candidate}-{key[-4:]}",
        candidate_id=candidate,
        source=f"{candidate}.cif",
        checkpoint={"key": key, "sha256": CHECKPOINTS[key], "energy_scale": "omat24"},
        settings={"fmax": 0.05, "max_steps": 500, "relax_cell": True, "digest": "d"},
        versions={"torch": "2.11"},
        device="cpu",
        dtype="float32",
        last_updated=NOW - timedelta(days=days),
        state=fields.pop("state", "converged"),
        **described,
        **fields,
    )
    return made.model_dump()


def documents():
    """All documents."""
    listed = []
    for candidate, formula, distance, modulus, imaginary, days in COMPUTED:
        for shift, key in enumerate(CHECKPOINTS):
            listed.append(
                document(
                    candidate,
                    formula,
                    key,
                    days,
                    energy_above_hull=distance + 0.01 * shift,
                    is_stable=distance + shift == 0,
                    elastic=None if modulus is None else {"state": "converged", "bulk_modulus": modulus + shift},
                    phonon=None if imaginary is None else {"state": "converged", "has_imaginary_modes": imaginary},
                )
            )
    listed += [document(name, formula, state=state, error=why, days=1) for name, formula, state, why in LOST]
    return listed


def crystal(formula):
    """Arbitrary structure with the elements of a formula."""
    species = [str(element) for element in Composition(formula).elements]
    return Structure(Lattice.cubic(4), species, [[i / len(species)] * 3 for i in range(len(species))])


def fill(store):
    """Store all documents, and the structures of the computed ones."""
    store.docs.update(documents())
    store.data.update(
        [
            {"document_id": f"{candidate}-{key[-4:]}", "structure": crystal(formula).as_dict()}
            for candidate, formula, *_ in COMPUTED
            for key in CHECKPOINTS
        ]
        + [{"document_id": "clash-_oam", "structure": None}]
    )
