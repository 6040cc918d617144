"""A test job that reports where it runs and that the checkpoint works there."""

from __future__ import annotations

from typing import Any

from jobflow import job
from pymatgen.core import Lattice, Structure

from matris.makers.batch import ran_on


@job(name="matris cluster check")
def probe(checkpoint: str | None = None) -> dict[str, Any]:
    """
    Load a checkpoint and compute a small crystal.

    Parameters
    ----------
    checkpoint
        Registry key or path of a checkpoint. Default: the embedded checkpoint.

    Returns
    -------
    dict
        Host, scheduler job and visible GPUs, as from `matris.makers.batch.ran_on`; ``device`` and ``device_name``;
        ``n_gpus``, the number of GPUs that torch sees; the version of ``torch``; key and SHA-256 of the checkpoint;
        the ``energy`` of the crystal (eV).
    """
    import torch

    from matris.model.potential import load

    device_type = "cuda" if torch.cuda.is_available() else "cpu"  # report a missing GPU instead of failing
    potential = load(checkpoint, device=device_type)
    crystal = Structure(Lattice.cubic(2.6), ["Mg", "O"], [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]])
    prediction = potential.predict(crystal)
    device = potential.device
    return {
        **ran_on(),
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "n_gpus": torch.cuda.device_count(),
        "torch": torch.__version__,
        "checkpoint": potential.card.key,
        "sha256": potential.card.sha256,
        "energy": float(prediction.energy),
    }
