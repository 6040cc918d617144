"""A job that tells where it runs, and that the checkpoint computes there."""

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
        Registry key or path of a checkpoint; by default the embedded one.

    Returns
    -------
    dict
        Where it ran, as `matris.makers.batch.ran_on` says, device, its name, the number of GPUs that torch sees, and
        the checkpoint's key and SHA-256.
    """
    import torch

    from matris.model.potential import load

    potential = load(checkpoint, device="cuda" if torch.cuda.is_available() else "cpu")  # to tell, not to fail
    crystal = Structure(Lattice.cubic(2.6), ["Mg", "O"], [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]])
    (prediction,) = potential.predict([crystal])
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
