"""Fine-tune on labels, and take the new checkpoint only if it is better."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from matris.errors import MatrisError
from matris.model.checkpoints import locate, read_file
from matris.model.potential import load
from matris.stores.documents.learning import Trained
from matris.stores.hull.with_dft import check_labels
from matris.training.data.dataset import DataSet
from matris.training.data.json_documents import from_document
from matris.training.data.labelled import LabelOptions
from matris.training.data.writer import SetOptions, write_set
from matris.training.finetuning import GENTLE, finetune
from matris.training.loss import LossWeights

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from matris.flows.learning.plan import Plan
    from matris.training.data.labelled import Outcome
    from matris.training.trainer import TrainSettings

ASIDE = 5
"""Of the labelled candidates, one in this many is set aside."""

_FEW = 3  # labelled candidates from which one is set aside

_WEIGHTED = {"energy": "energy", "force": "force", "stress": "stress"}  # error: its weight in the loss
_KEPT = {"energy": "energies", "force_component": "forces"}  # errors that may not grow on the old data


def learn(
    parent: str | Path | None,
    labels: Sequence[Mapping[str, Any]],
    aside: Collection[str],
    folder: Path,
    plan: Plan,
    *,
    key: str,
    roots: Mapping[str, str] | None = None,
    device: str | None = None,
) -> Trained:
    """
    Fine-tune a checkpoint on labels, with replay, and judge the result.

    A call with the same folder resumes a killed one.

    Parameters
    ----------
    parent
        Key or file of a checkpoint; None for the embedded checkpoint.
    labels
        Labels as `matris.stores.dft_labels.DftLabel` stores them, on the energy scale of the parent.
    aside
        Candidates whose labels are set aside: they judge.
    folder
        Folder of the set, the state of the training and the new checkpoint.
    plan
        Settings.
    key
        Key of the new checkpoint.
    roots
        Candidate of the first round by candidate id, whose geometries are never split. Default: each is its own.
    device
        Device.

    Returns
    -------
    Trained
        With the reasons why it was not taken, if it is not.

    Raises
    ------
    MatrisError
        If a label is on another energy scale or by a functional of another one, or the labels contradict the work they
        do (`matris.training.data.work.WorkCheck`).
    """
    file = locate(parent)
    card = read_file(file)[1]
    check_labels(labels, card.energy_scale)
    potential = load(str(file) if parent else None, device=device)
    if (folder / "data").exists():
        data = DataSet(folder / "data")
    else:
        folder.mkdir(parents=True, exist_ok=True)
        outcomes = _outcomes(labels, set(aside), roots or {})
        options = SetOptions(validation=0.0, split_by="material", energy_scale=card.energy_scale)
        data = write_set(folder / "data", [("labels", outcomes)], options, potential=potential)
    replay = None if plan.replay is None else DataSet(plan.replay)
    settings = train_settings(plan, replay=replay is not None)
    tuned = finetune(
        str(file) if parent else None, data, folder / "training", settings, key=key, replay=replay, device=device
    )
    if tuned is None:
        raise MatrisError("a loop fine-tunes in one process: do not start it by torchrun")
    made = read_file(tuned.path)[1]
    against = objections(tuned.before, tuned.after, tuned.old_before, tuned.old_after, plan.forgetting)
    return Trained(
        taken=not against,
        against=against,
        key=made.key,
        sha256=made.sha256,
        path=str(tuned.path.absolute()),
        parent=card.sha256,
        energy_scale=made.energy_scale,
        n_training=data.meta["n_training"],
        n_aside=data.meta["n_validation"],
        before=tuned.before,
        after=tuned.after,
        old_before=tuned.old_before,
        old_after=tuned.old_after,
    )


def train_settings(plan: Plan, *, replay: bool) -> TrainSettings:
    """Return the settings of the fine-tuning."""
    return replace(
        GENTLE,
        epochs=plan.epochs,
        batch_size=plan.batch_size,
        learning_rate=plan.learning_rate,
        frozen_blocks=plan.frozen_blocks,
        seed=plan.seed,
        validate_every=20,
        replay_share=plan.replay_share if replay else 0.0,
    )


def objections(
    before: Mapping[str, float],
    after: Mapping[str, float],
    old_before: Mapping[str, float],
    old_after: Mapping[str, float],
    forgetting: float,
) -> list[str]:
    """
    Say what speaks against a new checkpoint.

    It must have a lower energy error and a lower loss on the labels that were set aside, and the errors of energies and
    forces on the old data may grow by a bounded part of themselves.

    Parameters
    ----------
    before, after
        Errors of the parent and of the new checkpoint on labels that were set aside, as in
        `matris.training.loss.ERRORS`.
    old_before, old_after
        The same on old data; empty without.
    forgetting
        Largest relative growth of an error on old data.

    Examples
    --------
    >>> before, better = {"energy": 0.020, "force": 0.1}, {"energy": 0.010, "force": 0.1}
    >>> objections(before, better, {"energy": 0.020}, {"energy": 0.021}, 0.1)
    []
    >>> objections(before, better, {"energy": 0.020}, {"energy": 0.030}, 0.1)
    ['errors of energies on the old data grow by 50 %, more than 10 %']
    >>> objections(before, before, {}, {}, 0.1)[0]
    'the energy error on labels set aside is 20.0 meV/atom, and was 20.0'
    """
    against = []
    if not all(np.isfinite(value) for value in (*after.values(), *old_after.values())):
        against.append("its errors are not finite")
    if not after["energy"] < before["energy"]:
        against.append(
            f"the energy error on labels set aside is {1e3 * after['energy']:.1f} meV/atom, and was "
            f"{1e3 * before['energy']:.1f}"
        )
    elif not _loss(after) < _loss(before):
        against.append(f"the loss on labels set aside is {_loss(after):.3g}, and was {_loss(before):.3g}")
    for name, words in _KEPT.items():
        if name in old_before and not old_after[name] <= (1 + forgetting) * old_before[name]:
            growth = 100 * (old_after[name] / old_before[name] - 1) if old_before[name] else np.inf
            against.append(
                f"errors of {words} on the old data grow by {growth:.0f} %, more than {100 * forgetting:.0f} %"
            )
    return against


def _loss(errors: Mapping[str, float]) -> float:
    weights = LossWeights()
    return sum(getattr(weights, weight) * errors[name] for name, weight in _WEIGHTED.items() if name in errors)


def set_aside(new: Sequence[str], n_aside: int, n_before: int) -> list[str]:
    """
    Choose which new candidates are set aside: the same whenever it is called.

    Parameters
    ----------
    new
        Candidates that got their first label.
    n_aside, n_before
        Candidates that are set aside already, and candidates with labels before.

    Examples
    --------
    >>> set_aside([f"{i}" for i in range(10)], 0, 0)
    ['0', '5']
    >>> set_aside(["a"], 0, 0), set_aside(["a"], 0, 4), set_aside([], 0, 4)
    ([], ['a'], [])
    """
    n_all = n_before + len(new)
    wanted = max(n_all // ASIDE, int(n_all >= _FEW)) - n_aside
    ordered = sorted(new)
    if wanted <= 0 or not ordered:
        return []
    step = max(1, len(ordered) // wanted)
    return ordered[::step][:wanted]


def _outcomes(
    labels: Sequence[Mapping[str, Any]], aside: Collection[str], roots: Mapping[str, str]
) -> Iterator[Outcome]:
    """Read labels as frames, those of one candidate together, so that neighbours can be compared."""
    named = [(roots.get(label["candidate_id"], label["candidate_id"]), label) for label in labels]
    for root, label in sorted(named, key=lambda pair: (pair[0], str(pair[1]["label_id"]))):
        dft = label["dft"]
        document = {
            "structure": label["structure"],
            **{name: dft.get(name) for name in ("energy", "forces", "stress", "magmoms", "energy_scale")},
            "stress_unit": "eV/Å³",
            "material": root,
            "split": "validation" if root in aside else "training",
        }
        yield from_document(str(label["label_id"]), document, LabelOptions())
