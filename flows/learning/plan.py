"""Settings of a loop of rounds, and the rules by which it stops."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

from matris.errors import MatrisError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matris.stores.documents.learning import Round

_STEADY = 0.05  # changes of τ and of the calibration error up to which they do not move


@dataclass(frozen=True)
class Plan:
    """
    Settings of a loop.

    Parameters
    ----------
    per_round
        Largest number of candidates that a round chooses.
    budget
        Largest number of candidates with labels, of all rounds.
    patience
        Number of rounds in a row in which nothing moves, after which the loop stops.
    spread
        Standard deviation (eV/atom) of the errors of predicted distances to the hull, until labels tell.
    second
        Key or file of a second checkpoint, whose disagreement counts. Default: that of the round before.
    replay
        Folder of a set of old data, as the checkpoint was trained on (`matris data`).
    replay_share
        Fraction of old frames in each batch.
    forgetting
        Largest relative growth of the energy and force errors on the old data with which a checkpoint is taken.
    epochs, batch_size, learning_rate, frozen_blocks, seed
        As for `matris.training.trainer.TrainSettings`.

    Raises
    ------
    MatrisError
        If a number is out of range.

    Examples
    --------
    >>> Plan(per_round=20, budget=100).rounds
    5
    >>> Plan(per_round=0)
    Traceback (most recent call last):
    matris.errors.MatrisError: a round chooses at least one candidate, not 0
    """

    per_round: int = 30
    budget: int = 120
    patience: int = 2
    spread: float = 0.05
    second: str | None = None
    replay: str | None = None
    replay_share: float = 0.3
    forgetting: float = 0.1
    epochs: float = 40.0
    batch_size: int = 8
    learning_rate: float = 3e-4
    frozen_blocks: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        if self.per_round < 1:
            raise MatrisError(f"a round chooses at least one candidate, not {self.per_round}")
        if self.budget < 1:
            raise MatrisError(f"the budget is at least one label, not {self.budget}")
        if self.patience < 1 or self.spread <= 0 or self.forgetting < 0:
            raise MatrisError("patience, spread and forgetting: at least 1, above 0, and not negative")

    @property
    def rounds(self) -> int:
        """Number of rounds after which the budget is spent."""
        return -(-self.budget // self.per_round)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as a JSON object."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Read the settings from the output of `to_dict`."""
        return cls(**content)


def stop_reason(rounds: Sequence[Round], plan: Plan) -> str | None:
    """
    Say why no further round is needed.

    Parameters
    ----------
    rounds
        Closed rounds, in order.
    plan
        Settings of the loop.

    Returns
    -------
    str or None
        None if the loop goes on.

    Examples
    --------
    >>> from matris.stores.documents.learning import Round
    >>> common = {"campaign_id": "c", "checkpoint": "k", "sha256": "0", "n_ranked": 9, "n_steps": 0, "first_steps": 0}
    >>> rounds = [Round(number=n, n_labelled=5 * n + 5, label_ids=["l"], stable=["a"], **common) for n in range(3)]
    >>> stop_reason(rounds, Plan(budget=100))
    'in 2 rounds neither the list of stable phases nor τ nor the calibration error has moved'
    >>> stop_reason(rounds, Plan(budget=15)), stop_reason(rounds[:2], Plan(budget=100))
    ('the budget of 15 labels is spent', None)
    """
    if rounds and rounds[-1].n_labelled >= plan.budget:
        return f"the budget of {plan.budget} labels is spent"
    if rounds and not rounds[-1].label_ids:
        return f"round {rounds[-1].number} brought no label"
    last = rounds[-plan.patience - 1 :]
    if len(last) == plan.patience + 1 and all(map(_is_steady, last, last[1:])):
        return f"in {plan.patience} rounds neither the list of stable phases nor τ nor the calibration error has moved"
    return None


def _is_steady(before: Round, after: Round) -> bool:
    """Whether nothing has moved from one round to the next."""
    if set(before.stable) != set(after.stable):
        return False
    for name in ("tau", "calibration_error"):
        a, b = (None if each.agreement is None else getattr(each.agreement, name) for each in (before, after))
        if (a is None) != (b is None) or (a is not None and b is not None and abs(a - b) > _STEADY):
            return False
    return True
