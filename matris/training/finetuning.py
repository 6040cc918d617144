"""From a checkpoint and a few labels of one's own to a checkpoint for them: ``matris finetune``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from ase.data import atomic_numbers, covalent_radii
from pymatgen.core import Element

from matris.errors import MatrisError
from matris.model import checkpoints
from matris.model.checkpoints import Card
from matris.model.network import MatRIS
from matris.training.curve import drawn
from matris.training.data.dataset import DataSet
from matris.training.data.element_energies import refit_reference_energies
from matris.training.data.labelled import LabelOptions
from matris.training.data.reading import files_of, read_labelled
from matris.training.data.writer import SetOptions, write_set
from matris.training.fit_domain import label_ranges
from matris.training.processes import together
from matris.training.recipe import describe_set, domain_of, has_magmoms, provenance
from matris.training.trainer import LOG, Joined, TrainSettings, train, validate

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path


GENTLE = TrainSettings(
    epochs=20,
    batch_size=16,
    learning_rate=3e-4,
    warmup=20,
    weight_decay=1e-3,
    ema_decay=0.99,
    validate_every=50,
    early_stopping=10,
)
"""Settings for some hundred to some thousand frames."""

_ASIDE = 0.1  # of the frames of files


@dataclass(frozen=True)
class Tuned:
    """
    What fine-tuning came to.

    Attributes
    ----------
    path
        The new checkpoint.
    before, after
        Errors on the frames set aside, of `matris.training.loss.ERRORS`.
    old_before, old_after
        The same on old frames that were set aside; empty if there are none.
    """

    path: Path
    before: dict[str, float]
    after: dict[str, float]
    old_before: dict[str, float]
    old_after: dict[str, float]


def finetune(
    parent: str | Path | None,
    data: DataSet,
    output: Path,
    settings: TrainSettings = GENTLE,
    *,
    key: str | None = None,
    replay: DataSet | None = None,
    refit_energies: bool = False,
    energy_scale: str | None = None,
    device: str | None = None,
) -> Tuned | None:
    """
    Go on training a checkpoint; called again, go on where it stopped.

    Parameters
    ----------
    parent
        A key, a file, or nothing: the embedded checkpoint.
    data
        What to learn.
    output
        Folder of the state, the log, and the new checkpoint, ``KEY.safetensors``.
    settings
        How; `frozen_blocks` and `layer_decay` keep it close to what it was, and so does a share of `replay`.
    key
        Name of the new checkpoint.
    replay
        Frames of the kind that the parent was trained on, on its energy scale. Those of its validation part tell how
        much was forgotten.
    refit_energies
        Fit the element energies to what the parent gets wrong, as labels of another functional or other corrections
        ask for. The scale must then be named.
    energy_scale
        Of the labels. By default the parent's, which those of the set must be on.
    device
        Where to train.

    Returns
    -------
    Tuned
        None in processes that write nothing.

    Raises
    ------
    MatrisError
        If the labels are on another scale than the parent, and nothing is done about it.
    """
    network, card = checkpoints.read_file(checkpoints.locate(parent))
    key = key or f"{card.key}-finetuned"
    scale = _scale(card, data, replay, energy_scale, refit=refit_energies)
    training, validation = data.part("training"), data.part("validation")
    old, old_aside = ((), ()) if replay is None else (replay.part("training"), replay.part("validation"))
    with together(device) as (where, is_first):
        torch.manual_seed(settings.seed)
        network.domain = None  # what it has learnt is about to change
        network = _with_head(network, magmoms=has_magmoms(training)).to(where)
        before, old_before = validate(network, validation), validate(network, old_aside)
        new = sorted(set(data.meta["elements"]) - set(card.elements))
        introduce(network, card.elements, new)
        if refit_energies or new:
            refit_reference_energies(network, training, None if refit_energies else new)
        title = f"Fine-tuning of {card.key} to {key}"
        with drawn(output / LOG, output / "log.html", title, wanted=is_first):
            after = train(network, training, validation, settings, output, replay=old)
        if not is_first:
            return None
        tuned = Tuned(output / f"{key}.safetensors", before, after, old_before, validate(network, old_aside))
        details: dict[str, Any] = {
            **provenance(where),
            "parent": {"key": card.key, "sha256": card.sha256, "energy_scale": card.energy_scale},
            "data": describe_set(data),
            "replay": None if replay is None else describe_set(replay),
            "refitted_energies": "all" if refit_energies else new,
            "parameters": sum(p.numel() for p in network.parameters()),
            "training": asdict(settings),
            "errors": {
                "validation": after,
                "validation, parent": before,
                "old data": tuned.old_after,
                "old data, parent": old_before,
            },
            "parent_details": card.details,
        }
        made = Card(
            key=key,
            energy_scale=scale,
            predicts="efsm" if network.magmom_head is not None else "efs",
            elements=tuple(sorted({*card.elements, *data.meta["elements"]})),
            description=f"{card.key}, fine-tuned on {data.path.name}; outside of that chemistry use its parent",
            details=details,
        )
        details["domain"] = domain_of(network, made, Joined(data, () if replay is None else replay))
        details["trained_on"] = label_ranges(data)
        checkpoints.save(tuned.path, network, made)
        return tuned


def set_of(files: Sequence[Path], folder: Path) -> DataSet:
    """
    Make a set of files with labels; one that is there is opened, if it was made of the same files.

    Raises
    ------
    MatrisError
        If a file cannot be used, or the set was made of others.
    """
    sources = [file for path in files for file in files_of(path)]
    if folder.exists():
        data = DataSet(folder)
        if data.source_names != [file.name for file in sources]:
            raise MatrisError(f"{folder} was made of {', '.join(data.source_names)}: name another output folder")
        return data
    return write_set(
        folder, ((file.name, read_labelled(file, LabelOptions())) for file in sources), SetOptions(validation=_ASIDE)
    )


def _scale(card: Card, data: DataSet, replay: DataSet | None, named: str | None, *, refit: bool) -> str:
    """Energy scale of the new checkpoint."""
    if refit:
        if named is None:
            raise MatrisError(
                "re-fitted element energies make another energy scale: name it (--energy-scale), as it decides which "
                "corrections and reference phases are legal"
            )
        if replay is not None:
            raise MatrisError(
                f"old frames are on the scale {card.energy_scale}, re-fitted energies are not: leave one of them out"
            )
        return named
    said = named or data.meta["energy_scale"] or card.energy_scale
    if said != card.energy_scale:
        raise MatrisError(
            f"the labels are on the energy scale {said}, and {card.key} is on {card.energy_scale}: re-fit the element "
            f"energies (--refit-energies --energy-scale {said})"
        )
    return said


def _with_head(network: MatRIS, *, magmoms: bool) -> MatRIS:
    """Give the network a head for magnetic moments, if there are labels for one."""
    if not magmoms or network.magmom_head is not None:
        return network
    headed = MatRIS(network.config, magmoms=True)
    headed.load_state_dict({**headed.state_dict(), **network.state_dict()})
    return headed


@torch.no_grad()
def introduce(network: MatRIS, trained: Iterable[str], new: Iterable[str]) -> None:
    """
    Let elements that a network never saw start as the most alike one that it knows.

    Parameters
    ----------
    network
        Changed in place: rows of the atoms' embedding.
    known, new
        Symbols. Alike is what is close in covalent radius (ase.data) and electronegativity (Pauling's).
    """
    weights, trained = network.atom_embedding.weight, sorted(trained)
    for symbol in new:
        likest = min(trained, key=lambda other: _distance(symbol, other))
        weights[atomic_numbers[symbol] - 1] = weights[atomic_numbers[likest] - 1]


def _distance(one: str, other: str) -> float:
    """How unlike two elements are."""
    radii = [covalent_radii[atomic_numbers[s]] for s in (one, other)]
    polarity = [float(Element(s).X or 2.0) for s in (one, other)]
    return float(abs(np.log(radii[0] / radii[1])) / 0.12 + abs(polarity[0] - polarity[1]) / 0.35)
