"""Fine-tuning of a checkpoint to a few labels: ``matris finetune``."""

from __future__ import annotations

import logging
import warnings
from dataclasses import asdict, dataclass, replace
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
from matris.training.data.labelled import LabelOptions, Rejected, reduced_formula
from matris.training.data.reading import files_of, read_labelled
from matris.training.data.writer import SetOptions, write_set
from matris.training.fit_domain import label_ranges
from matris.training.precision import single_precision
from matris.training.processes import together
from matris.training.recipe import describe_set, domain_of, has_magmoms, provenance
from matris.training.trainer import LOG, Joined, TrainSettings, train, validate

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

logger = logging.getLogger(__name__)

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
"""Settings for a few hundred to a few thousand frames."""

_ASIDE = 0.1  # fraction of the frames of files for validation


@dataclass(frozen=True)
class Tuned:
    """
    Result of fine-tuning.

    Attributes
    ----------
    path
        The new checkpoint.
    before, after
        Validation errors, named as in `matris.training.loss.ERRORS`.
    old_before, old_after
        Validation errors on old frames; empty without old frames.
    """

    path: Path
    before: dict[str, float]
    after: dict[str, float]
    old_before: dict[str, float]
    old_after: dict[str, float]


@single_precision()
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
    Fine-tune a checkpoint; another call with the same output resumes it.

    Parameters
    ----------
    parent
        Key or file of a checkpoint; None for the embedded checkpoint.
    data
        Labelled frames.
    output
        Folder of the state, the log, and the new checkpoint ``KEY.safetensors``.
    settings
        Settings of the training. `frozen_blocks`, `layer_decay` and `replay_share` keep the result close to the parent.
    key
        Name of the new checkpoint.
    replay
        Old frames, as the parent was trained on, on its energy scale. Its validation part measures forgetting.
    refit_energies
        Fit the element energies to the errors of the parent, as needed for labels of another functional or with other
        corrections. The energy scale must then be named.
    energy_scale
        Energy scale of the labels. By default the parent's, which must be that of the set.
    device
        Device, as for `matris.model.potential.chosen_device`.

    Returns
    -------
    Tuned
        None in processes that do not write files.

    Raises
    ------
    MatrisError
        If the labels are on another energy scale than the parent, and the element energies are not re-fitted.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from ase.build import bulk
    >>> from matris.model.graph import Geometry
    >>> from matris.training.data.frame import Frame
    >>> from matris.training.data.labelled import Labelled
    >>> frames = [
    ...     Labelled(Frame(Geometry.of(bulk(symbol)), -3.0, np.zeros((1, 3)), np.zeros((3, 3)), symbol), symbol)
    ...     for symbol in ("Cu", "Ag", "Au")
    ... ]
    >>> settings = TrainSettings(steps=1, batch_size=2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     data = write_set(Path(folder) / "metals", [("example", frames)], SetOptions(validation=0.1))
    ...     tuned = finetune(None, data, Path(folder) / "tuned", settings, key="metals", device="cpu")
    ...     print(tuned.path.name, tuned.after["energy"] > 0)
    metals.safetensors True
    """
    network, card = checkpoints.read_file(checkpoints.locate(parent))
    key = key or f"{card.key}-finetuned"
    scale = _scale(card, data, replay, energy_scale, refit=refit_energies)
    training, validation = data.part("training"), data.part("validation")
    old, old_aside = ((), ()) if replay is None else (replay.part("training"), replay.part("validation"))
    with together(device) as (where, is_first):
        torch.manual_seed(settings.seed)
        network.domain = None  # it belongs to the old weights
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
        checkpoints.save(tuned.path, network, made)  # whatever comes after the training, its result is kept
        details["domain"] = domain_of(network, made, Joined(data, () if replay is None else replay))
        details["trained_on"] = label_ranges(data)
        checkpoints.save(tuned.path, network, made)
        return tuned


def set_of(files: Sequence[Path], folder: Path) -> DataSet:
    """
    Make a set of labelled files, or open an existing set that was made of the same files.

    Formulas are set aside for validation; of frames that all have one formula, blocks of consecutive frames.

    Raises
    ------
    MatrisError
        If a file cannot be used, or the existing set was made of other files.
    """
    sources = [file for path in files for file in files_of(path)]
    if folder.exists():
        data = DataSet(folder)
        if data.source_names != [file.name for file in sources]:
            raise MatrisError(f"{folder} was made of {', '.join(data.source_names)}: name another output folder")
        return data
    options = SetOptions(validation=_ASIDE)
    if _has_one_formula(sources):
        options = replace(options, split_by="block")
        logger.info("all frames have one formula: blocks of consecutive frames are set aside for validation")
    return write_set(folder, ((file.name, read_labelled(file, LabelOptions())) for file in sources), options)


def _has_one_formula(files: Iterable[Path]) -> bool:
    """Whether all frames that can be used have the same formula, and none says to which part it belongs."""
    formulas = set()
    for file in files:
        for item in read_labelled(file, LabelOptions()):
            if isinstance(item, Rejected):
                continue
            formulas.add(reduced_formula(item.frame.geometry.numbers))
            if len(formulas) > 1 or item.split is not None:
                return False
    return True


def _scale(card: Card, data: DataSet, replay: DataSet | None, named: str | None, *, refit: bool) -> str:
    """Choose the energy scale of the new checkpoint."""
    if refit:
        if named is None:
            raise MatrisError(
                "re-fitted element energies define another energy scale: name it (--energy-scale), since it determines "
                "which corrections and reference phases apply"
            )
        if replay is not None:
            raise MatrisError(
                f"old frames are on the scale {card.energy_scale}, re-fitted energies are not: use only one of the two"
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
    """Add a head for magnetic moments to the network, if there are labels for it."""
    if not magmoms or network.magmom_head is not None:
        return network
    headed = MatRIS(network.config, magmoms=True)
    headed.load_state_dict({**headed.state_dict(), **network.state_dict()})
    return headed


@torch.no_grad()
def introduce(network: MatRIS, trained: Iterable[str], new: Iterable[str]) -> None:
    """
    Initialize the embeddings of new elements with those of the most similar trained elements.

    Parameters
    ----------
    network
        The network, changed in place: rows of the atom embedding.
    trained, new
        Symbols. Similarity is that of covalent radius (ase.data) and Pauling electronegativity.
    """
    weights, trained = network.atom_embedding.weight, sorted(trained)
    for symbol in new:
        nearest = min(trained, key=lambda other: _distance(symbol, other))
        weights[atomic_numbers[symbol] - 1] = weights[atomic_numbers[nearest] - 1]


def _distance(one: str, other: str) -> float:
    """Return the distance of two elements in covalent radius and electronegativity."""
    radii = [covalent_radii[atomic_numbers[s]] for s in (one, other)]
    polarity = [_electronegativity(s) for s in (one, other)]
    return float(abs(np.log(radii[0] / radii[1])) / 0.12 + abs(polarity[0] - polarity[1]) / 0.35)


def _electronegativity(symbol: str) -> float:
    """Return the Pauling electronegativity, and a middle value for elements that have none, such as argon."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "No Pauling electronegativity")
        value = float(Element(symbol).X)
    return 2.0 if np.isnan(value) else value
