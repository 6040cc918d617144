"""The golden values: structures, weights as a pure function of name and shape, expected results."""

from __future__ import annotations

import json
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import torch
from pymatgen.core import Structure

from matris.model import official
from matris.model.checkpoints import Card
from matris.model.config import ModelConfig
from matris.model.potential import Potential

PARITY = Path(__file__).parent.parent / "data" / "parity.json"


@cache
def golden() -> dict:
    return json.loads(PARITY.read_text())


@cache
def structures() -> dict[str, Structure]:
    return {name: Structure.from_dict(value) for name, value in golden()["structures"].items()}


def published_state(case: dict) -> dict[str, torch.Tensor]:
    """State dict under the published names, drawn as the golden file prescribes."""
    constants = case["constants"]
    state = {}
    for name in {**case["shapes"], **constants}:
        if name in constants:
            values = np.asarray(constants[name])
        else:
            shape = case["shapes"][name]
            values = np.random.default_rng([golden()["seed"], zlib.crc32(name.encode())]).standard_normal(shape)
            if len(shape) == 2 and "res_weight" not in name:
                values *= 1 if "embedding.embedding" in name else np.sqrt(1.4 / shape[1])
            else:
                values = 0.1 * values + (name.endswith("weight") or "res_weight" in name)
        state[name] = torch.from_numpy(np.asarray(values, dtype=np.float32))
    return state


def golden_potential(name: str, dtype: torch.dtype) -> Potential:
    case = golden()["cases"][name]
    network, state = official.translate(published_state(case), ModelConfig.from_dict(case["config"]), name)
    network.load_state_dict(state)
    network.requires_grad_(False).eval().to(dtype)
    elements = tuple({site.specie.symbol for s in structures().values() for site in s})
    return Potential(network, Card(key=name, predicts="efsm", elements=elements))
