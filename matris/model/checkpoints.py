"""Checkpoint files: the published ones, ours, the registry, the cache and the download."""

from __future__ import annotations

import hashlib
import json
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass, field, fields, replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch
from pymatgen.core import Element
from safetensors import SafetensorError, safe_open

from matris.errors import CheckpointError
from matris.files.cache import cache_directory
from matris.files.whole_file import whole_file
from matris.model import official
from matris.model.config import MAX_ATOMIC_NUMBER, ModelConfig
from matris.model.domain import Domain
from matris.model.network import MatRIS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FORMAT = "matris-checkpoint-1"
EMBEDDED = "matris_embedded"
LARGE = "matris_embedded_large"
_RELEASE = "https://github.com/HPC-AI-Team/MatRIS/releases/download/v1.0.0"
_TIMEOUT = 60.0


@dataclass(frozen=True)
class Card:
    """
    What a user must know of a checkpoint.

    Parameters
    ----------
    key
        Its name.
    energy_scale
        Which reference energies and corrections are legal with it: ``"mp"``, ``"omat24"``, ``"matpes-pbe"``,
        ``"matpes-r2scan"``, or a name of the user's own.
    predicts
        ``"efs"`` or ``"efsm"``: energy, forces, stress, magnetic moments.
    elements
        Symbols it was trained on.
    sha256
        Digest of the file; filled in when it is loaded.
    description
        One or two sentences, limits included.
    details
        Everything else: training data, teacher, sizes, date, measured errors.
    """

    key: str
    energy_scale: str = "unknown"
    predicts: str = "efs"
    elements: tuple[str, ...] = ()
    sha256: str = ""
    description: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**asdict(self), "elements": list(self.elements)}

    @classmethod
    def from_dict(cls, card: Mapping[str, Any]) -> Card:
        """
        Read a card; keys of newer versions are ignored.

        Raises
        ------
        CheckpointError
            If there is no key.
        """
        known = {f.name for f in fields(cls)}
        values = {name: value for name, value in card.items() if name in known}
        if not isinstance(values.get("key"), str):
            raise CheckpointError("the checkpoint's card has no key")
        return cls(**{**values, "elements": tuple(values.get("elements", ()))})


@dataclass(frozen=True)
class Published:
    """A checkpoint that the authors of MatRIS released."""

    key: str
    file: str
    trained_on: str
    predicts: str
    energy_scale: str

    @property
    def url(self) -> str:
        """Where it comes from."""
        return f"{_RELEASE}/{self.file}"

    @property
    def path(self) -> Path:
        """Where it is looked for, and where a download puts it."""
        return cache_directory() / self.file


REGISTRY = {
    entry.key: entry
    for entry in (
        Published("matris_10m_oam", "MatRIS_10M_OAM.pth.tar", "OMat24, then sAlex + MPtrj", "efsm", "mp"),
        Published("matris_10m_mp", "MatRIS_10M_MP.pth.tar", "MPtrj", "efsm", "mp"),
        Published("matris_10m_omat", "MatRIS_10M_OMAT.pth.tar", "OMat24", "efs", "omat24"),
        Published("matris_4m_matpes_pbev1", "MatRIS_4M_MatPES_PBEv1.pth.tar", "MatPES-PBE 2025.1", "efs", "matpes-pbe"),
        Published("matris_4m_matpes_pbev2", "MatRIS_4M_MatPES_PBEv2.pth.tar", "MatPES-PBE 2025.2", "efs", "matpes-pbe"),
        Published(
            "matris_4m_matpes_r2scanv1",
            "MatRIS_4M_MatPES_r2SCANv1.pth.tar",
            "MatPES-r2SCAN 2025.1",
            "efs",
            "matpes-r2scan",
        ),
        Published(
            "matris_4m_matpes_r2scanv2",
            "MatRIS_4M_MatPES_r2SCANv2.pth.tar",
            "MatPES-r2SCAN 2025.2",
            "efs",
            "matpes-r2scan",
        ),
    )
}
"""The published checkpoints by key."""


def locate(key_or_path: str | Path | None = None) -> Path:
    """
    Find a checkpoint's file, downloading a published one that is not in the cache.

    Parameters
    ----------
    key_or_path
        A key of the registry, a path to a published file (``.pth.tar``) or to one of ours (``.safetensors``),
        or nothing: the embedded checkpoint.

    Raises
    ------
    CheckpointError
        If there is no such checkpoint, or it cannot be downloaded.
    """
    if key_or_path is None or key_or_path in (EMBEDDED, LARGE):
        return Path(str(files("matris") / "data" / f"{key_or_path or EMBEDDED}.safetensors"))
    if str(key_or_path) in REGISTRY:
        return _fetch(REGISTRY[str(key_or_path)])
    path = Path(key_or_path).expanduser().absolute()
    if not path.is_file():
        known = ", ".join([EMBEDDED, LARGE, *REGISTRY])
        raise CheckpointError(f"no checkpoint {str(key_or_path)!r}: it is neither a file nor one of {known}")
    return path


def read_file(path: Path) -> tuple[MatRIS, Card]:
    """
    Read a checkpoint file of either format, told apart by its content.

    Returns
    -------
    network
        On the CPU, float32, frozen.
    card

    Raises
    ------
    CheckpointError
        If the file is truncated, foreign, or does not fit its own config.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(9)
            stream.seek(0)
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"cannot read checkpoint {path}: {error}") from error
    if not head:
        raise CheckpointError(f"checkpoint {path} is empty: delete it and fetch it again")
    # ours begins with the length of its header, which may be any byte, and its header
    torch_file = head[:2] == b"PK" or head[:1] == b"\x80" or path.name.endswith((".pth.tar", ".pt", ".pth"))
    published = torch_file and head[8:] != b"{"
    network, card = _read_published(path) if published else _read_own(path)
    return network.requires_grad_(False).eval(), replace(card, sha256=digest)


def save(path: Path, network: MatRIS, card: Card) -> None:
    """
    Write our format: safetensors with the config and the card as JSON metadata, atomically.

    Raises
    ------
    CheckpointError
        If the file cannot be written.
    """
    metadata = {
        "format": FORMAT,
        "config": json.dumps(network.config.to_dict()),
        "card": json.dumps(replace(card, sha256="").to_dict()),
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    try:
        with whole_file(path) as draft:
            draft.write_bytes(safetensors.torch.save(tensors, metadata))  # its save_file shuts other users out
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot write checkpoint {path}: {error}") from error


def _read_own(path: Path) -> tuple[MatRIS, Card]:
    """Read safetensors with our metadata."""
    try:
        with safe_open(path, framework="pt") as stream:
            metadata = stream.metadata() or {}
            state = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is truncated or not a checkpoint: {error}") from error
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path} is a safetensors file, but not a {FORMAT} checkpoint")
    try:
        config, card = json.loads(metadata["config"]), json.loads(metadata["card"])
    except (KeyError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} has a damaged config or card: {error}") from error
    network = MatRIS(ModelConfig.from_dict(config), magmoms=any(name.startswith("magmom_head") for name in state))
    if (prototypes := state.get("domain.prototypes")) is not None:
        network.domain = Domain.like(prototypes)
    _load_state(network, state, path)
    return network, Card.from_dict(card)


def _read_published(path: Path) -> tuple[MatRIS, Card]:
    """Read a torch file of config and state dict; nothing in it is executed."""
    content = load_plain(path)
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        content = content["model"]
    if not isinstance(content, dict) or not all(isinstance(content.get(k), dict) for k in ("config", "state_dict")):
        raise CheckpointError(f"{path} is a torch file, but not a MatRIS checkpoint: it has no config and state_dict")
    state = content["state_dict"]
    if not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise CheckpointError(f"{path}: its state_dict holds more than tensors")
    config = ModelConfig.from_dict(content["config"])
    network, translated = official.translate(state, config, str(path))
    _load_state(network, translated, path)
    entry = next((e for e in REGISTRY.values() if e.file == path.name), None)
    # an element without a reference energy was not in the training set
    known = network.reference_energies.abs() > 1e-10  # noqa: PLR2004
    if not known.any():
        known = torch.ones_like(known)
    elements = tuple(Element.from_Z(z).symbol for z in range(1, MAX_ATOMIC_NUMBER + 1) if known[z - 1])
    if entry is None:
        return network, Card(key=path.name, elements=elements, description="published format, unknown origin")
    return network, Card(
        key=entry.key,
        energy_scale=entry.energy_scale,
        predicts=entry.predicts,
        elements=elements,
        description=f"published MatRIS checkpoint, trained on {entry.trained_on}",
    )


def load_plain(path: Path) -> Any:
    """
    Read a torch file of plain tensors and values; nothing in it is executed.

    Raises
    ------
    CheckpointError
        If it is truncated or holds anything else.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # an unpickler that is fed rubbish may raise anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path} is truncated, or not a file of plain tensors ({reason}); delete it and fetch or make it again"
        ) from error


def _load_state(network: MatRIS, state: Mapping[str, torch.Tensor], path: Path) -> None:
    """Fill a network, or say which tensor does not fit."""
    try:
        network.load_state_dict(dict(state))
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:3]]
        raise CheckpointError(f"{path} does not fit its own config: {' '.join(lines)}") from error
    for name, tensor in network.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{path}: {name} has NaN or infinite values")


def _fetch(entry: Published) -> Path:
    """Path of a published file, downloaded and verified if it is not in the cache."""
    if entry.path.exists():
        return entry.path
    way_out = f"fetch {entry.url} by other means and place it at {entry.path}"
    try:
        with whole_file(entry.path) as draft:  # verified there: an unverified file must never be in the cache
            with urllib.request.urlopen(entry.url, timeout=_TIMEOUT) as response, draft.open("wb") as out:  # noqa: S310 - ours
                expected = response.headers.get("Content-Length")
                size = sum(out.write(block) for block in _blocks(response))
            if size == 0 or (expected is not None and size != int(expected)):
                raise CheckpointError(f"the download of {entry.key} ended after {size} of {expected} bytes; {way_out}")
            try:
                read_file(draft)
            except CheckpointError as error:
                raise CheckpointError(f"what {entry.url} serves is no checkpoint ({error}); {way_out}") from error
    except (urllib.error.URLError, TimeoutError, OSError) as error:
        raise CheckpointError(f"cannot download {entry.key}: {error}; {way_out}") from error
    return entry.path


def _blocks(stream: Any) -> Iterator[bytes]:
    """Read a response in pieces."""
    while block := stream.read(1 << 20):
        yield block
