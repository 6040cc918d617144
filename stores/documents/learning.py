"""A campaign that learns: its rounds, and what it writes into candidate documents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, Field

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = "root"
"""Field of a candidate's provenance: the candidate of the first round that it descends from."""


class Choice(BaseModel):
    """Choice of a candidate for a first-principles calculation."""

    loop: str = Field(description="Name of the loop, that of its first campaign.")
    round: int = Field(description="Round of the loop.")
    reasons: list[str] = Field(description="Why it was chosen: near the hull, extrapolating, disagreement, diverse, ….")
    probability: float | None = Field(
        default=None, description="Probability of stability when it was chosen; None for competing phases."
    )


class DftEnergy(BaseModel):
    """First-principles energy that stands for the prediction on the hull with labels (`hulls.dft`)."""

    label_id: str = Field(description="Label, of all labels of the candidate the one of lowest energy.")
    code: str = Field(description="Program, such as VASP.")
    functional: str = Field(description="Functional, such as PBE, PBE+U or r2SCAN.")
    energy_scale: str = Field(description="Energy scale, that of the checkpoint.")
    uncorrected_energy_per_atom: float = Field(description="Energy as calculated (eV/atom).")
    energy_per_atom: float = Field(description="Energy with its own corrections for the energy scale (eV/atom).")
    enthalpy_per_atom: float | None = Field(
        default=None, description="`energy_per_atom` + pV at the pressure of the candidate (eV/atom)."
    )
    corrections: dict[str, float] = Field(default_factory=dict, description="Energy corrections by name (eV per cell).")
    correction_scheme: str | None = Field(default=None, description="Name of the correction scheme.")
    correction_state: Literal["decided", "undecided"] | None = Field(
        default=None, description="As in the document of the candidate."
    )
    fmax: float = Field(description="Largest force on an atom in the geometry of the label (eV/Å).")


class ChosenCandidate(BaseModel):
    """A candidate that a round has chosen."""

    document_id: str = Field(description="Document of the round's campaign.")
    candidate_id: str = Field(description="Candidate of the round's campaign.")
    root: str = Field(description="Candidate of the first round that it descends from.")
    reasons: list[str] = Field(description="Why it was chosen.")
    probability: float | None = Field(default=None, description="Probability of stability; None for elements.")


class Trained(BaseModel):
    """Outcome of a fine-tuning; errors are in eV/atom, eV/Å and GPa."""

    taken: bool = Field(description="Whether the next round uses the new checkpoint.")
    against: list[str] = Field(default_factory=list, description="Why it was not taken.")
    key: str = Field(description="Key of the new checkpoint.")
    sha256: str = Field(description="SHA-256 hash of its file.")
    path: str = Field(description="Its file.")
    parent: str = Field(description="SHA-256 hash of the checkpoint that was fine-tuned.")
    energy_scale: str = Field(description="Its energy scale, that of the parent.")
    n_training: int = Field(description="Number of labelled frames it was trained on.")
    n_aside: int = Field(description="Number of labelled frames set aside.")
    before: dict[str, float] = Field(description="Errors of the parent on the labels set aside.")
    after: dict[str, float] = Field(description="Its errors on them.")
    old_before: dict[str, float] = Field(default_factory=dict, description="Errors of the parent on the old data.")
    old_after: dict[str, float] = Field(default_factory=dict, description="Its errors on the old data.")


class Agreement(BaseModel):
    """Predicted distances to the hull against those with the labels that came after the prediction."""

    n: int = Field(description="Number of candidates compared.")
    tau: float | None = Field(default=None, description="Kendall's τ-b of the two rankings.")
    calibration_error: float | None = Field(
        default=None, description="Mean difference of the share that is stable from the probability that was expected."
    )
    mae: float | None = Field(default=None, description="Mean absolute difference of the distances (eV/atom).")
    bias: float | None = Field(default=None, description="Mean of true minus predicted (eV/atom).")
    spread: float | None = Field(default=None, description="Standard deviation of the difference (eV/atom).")


class Round(BaseModel):
    """One round: a campaign by one checkpoint, the candidates chosen from it, their labels, and what was learned."""

    number: int = Field(description="Number of the round, from 0.")
    state: Literal["chosen", "labelled", "learned"] = Field(
        default="chosen", description="chosen: waits for labels; labelled: they are in; learned: the round is closed."
    )
    campaign_id: str = Field(description="Campaign of the round.")
    checkpoint: str = Field(description="Key of its checkpoint.")
    sha256: str = Field(description="SHA-256 hash of its checkpoint.")
    n_ranked: int = Field(description="Number of different crystals on its ranking.")
    n_steps: int = Field(description="Optimisation steps of all its relaxations.")
    first_steps: int = Field(description="Optimisation steps of the same candidates in the first campaign.")
    chosen: list[ChosenCandidate] = Field(default_factory=list, description="Candidates to calculate.")
    label_ids: list[str] = Field(default_factory=list, description="Labels that were new when the round was closed.")
    n_labelled: int = Field(default=0, description="Candidates with a label, of all rounds so far.")
    failed: dict[str, str] = Field(default_factory=dict, description="Chosen candidates without a label, and why.")
    aside: list[str] = Field(default_factory=list, description="New candidates whose labels are set aside.")
    stable: list[str] = Field(default_factory=list, description="Candidates on the hull with labels, by their roots.")
    confirmed: list[str] = Field(default_factory=list, description="Those of them that have a label.")
    found: list[str] = Field(
        default_factory=list, description="Those of the confirmed that are stable by the checkpoint of the round alone."
    )
    agreement: Agreement | None = Field(default=None, description="Predictions against new labels.")
    trained: Trained | None = Field(default=None, description="Outcome of the fine-tuning; None: too few labels.")

    @property
    def recall(self) -> float | None:
        """Fraction of the phases stable by their labels that the checkpoint finds too; None without such phases."""
        return len(self.found) / len(self.confirmed) if self.confirmed else None


class LoopRecord(BaseModel):
    """A loop of rounds; one document, so that a round is in the store as a whole or not at all."""

    loop_id: str = Field(description="Name of the loop: that of its first campaign.")
    title: str = Field(description="Title of the first campaign.")
    plan: dict[str, Any] = Field(default_factory=dict, description="Settings of the last run.")
    rounds: list[Round] = Field(default_factory=list, description="Rounds in order.")
    campaigns: list[str] = Field(
        default_factory=list, description="Campaigns of the loop in order; the last one may have no round yet."
    )
    stopped: str | None = Field(default=None, description="Why the loop has ended.")
    last_updated: Any = Field(default=None, description="Last change, UTC.")

    def new_labelled(self, number: int) -> int:
        """Count the candidates that got their first label in a round."""
        before = self.rounds[number - 1].n_labelled if number else 0
        return self.rounds[number].n_labelled - before


def root_of(document: Mapping[str, Any]) -> str:
    """
    Return the candidate of the first round that a document descends from: later rounds start from relaxed structures.

    Parameters
    ----------
    document
        Candidate document with ``candidate_id`` and ``provenance``.

    Examples
    --------
    >>> root_of({"candidate_id": "b", "provenance": {"root": "a"}}), root_of({"candidate_id": "b", "provenance": {}})
    ('a', 'b')
    """
    return str((document.get("provenance") or {}).get(ROOT) or document["candidate_id"])


def stability(document: Mapping[str, Any]) -> float | None:
    """
    Return the distance of a candidate to the hull of the other phases, eV/atom: negative for stable phases.

    Parameters
    ----------
    document
        Candidate document with ``energy_above_hull`` and ``equilibrium_reaction_energy_per_atom``.

    Returns
    -------
    float or None
        None without a place on the hull. A phase on its own hull is below that of the others by its reaction energy.

    Examples
    --------
    >>> stability({"energy_above_hull": 0.02})
    0.02
    >>> stability({"energy_above_hull": 0.0, "equilibrium_reaction_energy_per_atom": -0.3})
    -0.3
    """
    above: float | None = document.get("energy_above_hull")
    if above is None or above != 0:
        return above
    return float(document.get("equilibrium_reaction_energy_per_atom") or 0.0)
