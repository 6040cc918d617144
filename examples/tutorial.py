# %% [markdown]
# From a folder of CIF files to a ranked table, phonons and a query.
#
# Run it as a script (`python examples/tutorial.py`) or cell by cell: editors and Jupytext open it as a notebook.
# It takes about half a minute on one CPU core with the embedded checkpoint. For results that you publish, name a
# published checkpoint instead: `BatchRelaxMaker(checkpoint="matris_10m_oam")`.

# %% Read the candidates
from pathlib import Path

from matris.flows import Campaign, Funnel, read_candidates, run
from matris.makers import BatchRelaxMaker

candidates = list(read_candidates(Path(__file__).parent / "structures"))
print(f"{len(candidates)} candidates: {', '.join(Path(c.source).stem for c in candidates)}")

# %% Run the campaign: relax, place on the convex hull, compute phonons of what lies within 50 meV/atom of it
campaign = Campaign(
    "tutorial-results",  # a folder; the same call resumes a campaign that was killed, and computes nothing twice
    BatchRelaxMaker(fmax=0.02),
    Funnel(window=0.05, properties=("phonon",)),
    title="Tutorial",
)
run(campaign, candidates)

# %% Rank: energy above the hull in meV/atom, lowest first
store = campaign.store
ranked = store.query(state="converged").sort("energy_above_hull", "formula")
print("\nformula    space group   above hull (meV/atom)")
for document in ranked:
    group = document["symmetry"]["symbol"]
    print(f"{document['formula_pretty']:10} {group:13} {1000 * document['energy_above_hull']:10.0f}")

# %% Phonons: which of the survivors are dynamically stable?
print("\nformula    space group   lowest frequency (THz)")
for document in ranked.where("phonon is known"):
    phonon = document["phonon"]
    verdict = "imaginary modes" if phonon["has_imaginary_modes"] else "stable"
    print(
        f"{document['formula_pretty']:10} {document['symmetry']['symbol']:13} "
        f"{round(phonon['min_frequency'], 1) + 0.0:10.1f}   {verdict}"
    )

# %% Ask a question, now or months later: `matris query` on the command line reads the same language
oxides = store.query().where("ehull <= 50 meV and has O and not phonon.has_imaginary_modes and nelements >= 2")
print("\nOn or near the hull, and dynamically stable:", ", ".join(sorted({d["formula_pretty"] for d in oxides})))
