"""Checkpoint files: the published and our own format, registry, cache directory and download."""

from __future__ import annotations

import http.client
import json
import logging
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
from matris.model.digests import file_sha256, record, record_of, recorded
from matris.model.domain import Domain
from matris.model.network import MatRIS
from matris.nearest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

FORMAT = "matris-checkpoint-1"
EMBEDDED = "matris_embedded"
_RELEASE = "https://github.com/HPC-AI-Team/MatRIS/releases/download/v1.0.0"
_FIGSHARE = "https://api.figshare.com/v2/file/download"
_TIMEOUT = 60.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Card:
    """
    Description of a checkpoint for its users.

    Parameters
    ----------
    key
        Name of the checkpoint.
    energy_scale
        Scale of the energies, which decides the valid reference energies and corrections: ``"mp"``, ``"omat24"``,
        ``"matpes-pbe"``, ``"matpes-r2scan"``, or a custom name.
    predicts
        ``"efs"`` or ``"efsm"``: energy, forces, stress, magnetic moments.
    elements
        Symbols of the elements in the training set.
    sha256
        Digest of the file; set when the file is loaded.
    description
        One or two sentences, limits included.
    details
        All other information: training data, teacher, sizes, date, measured errors.

    Examples
    --------
    >>> card = Card("mine", energy_scale="mp", elements=("Na", "Cl"))
    >>> Card.from_dict(card.to_dict()) == card
    True
    """

    key: str
    energy_scale: str = "unknown"
    predicts: str = "efs"
    elements: tuple[str, ...] = ()
    sha256: str = ""
    description: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def is_demonstrator(self) -> bool:
        """Whether the card says anywhere that the checkpoint is a demonstrator, whose numbers are no results."""
        return "demonstrator" in str(asdict(self)).lower()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**asdict(self), "elements": list(self.elements)}

    @classmethod
    def from_dict(cls, card: Mapping[str, Any]) -> Card:
        """
        Read a card; unknown fields are ignored.

        Raises
        ------
        CheckpointError
            If the card has no key.
        """
        names = {f.name for f in fields(cls)}
        values = {name: value for name, value in card.items() if name in names}
        if not isinstance(values.get("key"), str):
            raise CheckpointError("the checkpoint's card has no key")
        return cls(**{**values, "elements": tuple(values.get("elements", ()))})


@dataclass(frozen=True)
class Published:
    """
    A checkpoint that the authors of MatRIS released.

    Parameters
    ----------
    key
        Name in the registry.
    file
        Name of the file in the release, and in the cache directory.
    trained_on
        Training data.
    predicts, energy_scale
        As in `Card`.
    sha256
        Digest of the file; None if its authors state none. Then the digest of the first file that is used is shown and
        recorded (`matris.model.digests`), and other files of that name are refused.
    figshare
        Number of the file at figshare, the second address.
    """

    key: str
    file: str
    trained_on: str
    predicts: str
    energy_scale: str
    sha256: str | None = None
    figshare: int | None = None

    @property
    def urls(self) -> tuple[str, ...]:
        """Addresses of the file: that in the release, then the second one."""
        return self.url, *([] if self.figshare is None else [f"{_FIGSHARE}/{self.figshare}"])

    @property
    def expected(self) -> str | None:
        """Digest that the file must have: that of its authors, else that of the first file that was used."""
        return self.sha256 or recorded(self.file)

    @property
    def url(self) -> str:
        """Address of the file in the release."""
        return f"{_RELEASE}/{self.file}"

    @property
    def path(self) -> Path:
        """Path of the file in the cache directory."""
        return cache_directory() / self.file


REGISTRY = {
    entry.key: entry
    for entry in (
        Published(
            "matris_10m_oam",
            "MatRIS_10M_OAM.pth.tar",
            "OMat24, then sAlex + MPtrj",
            "efsm",
            "mp",
            sha256="c033abc53601a74f10d9b7fec0f658220c013c3b11d4d405f1d32136d4c2b067",  # from fastMD's H100 benchmarks
            figshare=59142728,
        ),
        Published("matris_10m_mp", "MatRIS_10M_MP.pth.tar", "MPtrj", "efsm", "mp", figshare=59143058),
        Published("matris_10m_omat", "MatRIS_10M_OMAT.pth.tar", "OMat24", "efs", "omat24", figshare=69575544),
        Published(
            "matris_4m_matpes_pbev1",
            "MatRIS_4M_MatPES_PBEv1.pth.tar",
            "MatPES-PBE 2025.1",
            "efs",
            "matpes-pbe",
            figshare=69575532,
        ),
        Published(
            "matris_4m_matpes_pbev2",
            "MatRIS_4M_MatPES_PBEv2.pth.tar",
            "MatPES-PBE 2025.2",
            "efs",
            "matpes-pbe",
            figshare=69575535,
        ),
        Published(
            "matris_4m_matpes_r2scanv1",
            "MatRIS_4M_MatPES_r2SCANv1.pth.tar",
            "MatPES-r2SCAN 2025.1",
            "efs",
            "matpes-r2scan",
            figshare=69575538,
        ),
        Published(
            "matris_4m_matpes_r2scanv2",
            "MatRIS_4M_MatPES_r2SCANv2.pth.tar",
            "MatPES-r2SCAN 2025.2",
            "efs",
            "matpes-r2scan",
            figshare=69576381,
        ),
    )
}
"""The published checkpoints by key."""


def locate(key_or_path: str | Path | None = None) -> Path:
    """
    Find the file of a checkpoint; a published one that is not in the cache is downloaded.

    Parameters
    ----------
    key_or_path
        A key of the registry, a path to a published file (``.pth.tar``) or to one of our own (``.safetensors``), or
        None for the embedded checkpoint.

    Returns
    -------
    Path

    Raises
    ------
    CheckpointError
        If there is no such checkpoint, it cannot be downloaded from either address, or the file of a key has another
        SHA-256 than the registry states or than the first file of that key had.

    Examples
    --------
    >>> locate().name
    'matris_embedded.safetensors'
    """
    if key_or_path in (None, EMBEDDED):
        return Path(str(files("matris") / "data" / f"{EMBEDDED}.safetensors"))
    if str(key_or_path) in REGISTRY:
        return _fetch(REGISTRY[str(key_or_path)])
    path = Path(key_or_path).expanduser().absolute()
    if not path.is_file():
        keys = [EMBEDDED, *REGISTRY]
        raise CheckpointError(
            f"no checkpoint {str(key_or_path)!r}: it is neither a file nor a key{did_you_mean(str(key_or_path), keys)}"
        )
    return path


def knowing(elements: Collection[str]) -> list[str]:
    """
    List the keys of the checkpoints at hand that support all of some elements.

    Parameters
    ----------
    elements
        Symbols.

    Examples
    --------
    >>> "matris_embedded" in knowing(["Mg", "O"]), knowing(["Og"])
    (True, [])
    """
    at_hand = [EMBEDDED, *(key for key, entry in REGISTRY.items() if entry.path.is_file())]
    return [key for key in at_hand if set(elements) <= set(_elements_of(key))]


def require_elements(key_or_path: str | Path | None, elements: Collection[str]) -> None:
    """
    Refuse elements that a checkpoint does not support.

    Parameters
    ----------
    key_or_path
        Checkpoint, as for `locate`. It is read only if there are elements.
    elements
        Symbols.

    Raises
    ------
    CheckpointError
        With the elements, and the checkpoints at hand that support them; or as for `locate` and `read_file`.

    Examples
    --------
    >>> require_elements(None, ["Mg", "O"])
    >>> require_elements(None, ["Mg", "Og"])
    Traceback (most recent call last):
    matris.errors.CheckpointError: matris_embedded does not know Og. No checkpoint at hand knows Mg, Og: ...
    """
    if not elements:
        return
    card = read_file(locate(key_or_path))[1]
    wanted = sorted(set(elements))
    if unknown := [symbol for symbol in wanted if symbol not in card.elements]:
        raise CheckpointError(f"{card.key} does not know {', '.join(unknown)}. {where_known(wanted)}")


def where_known(elements: Collection[str]) -> str:
    """
    Say in one sentence which checkpoints support all of some elements.

    Examples
    --------
    >>> where_known(["Og"])
    'No checkpoint at hand knows Og: place the file of a published one (matris models), or train one'
    """
    names = ", ".join(elements)
    if keys := knowing(elements):
        return f"Checkpoints that know {names}: {', '.join(keys)}"
    return f"No checkpoint at hand knows {names}: place the file of a published one (matris models), or train one"


def _elements_of(key: str) -> tuple[str, ...]:
    """Elements of a checkpoint at hand; none if its file cannot be used."""
    try:
        return read_file(locate(key))[1].elements
    except CheckpointError as error:
        logger.info("%s: %s", key, error)
        return ()


def read_file(path: Path) -> tuple[MatRIS, Card]:
    """
    Read a checkpoint file of either format; the content decides which one.

    Returns
    -------
    network
        On the CPU, in float32, with frozen weights.
    card
        Description of the checkpoint.

    Raises
    ------
    CheckpointError
        If the file is truncated, foreign, or does not fit its own config.

    Examples
    --------
    >>> network, card = read_file(locate())
    >>> card.key, card.energy_scale, network.config.pairwise_cutoff
    ('matris_embedded', 'mp', ...)
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(9)
        digest = file_sha256(path)
    except OSError as error:
        raise CheckpointError(f"cannot read checkpoint {path}: {error}") from error
    if not head:
        raise CheckpointError(f"checkpoint {path} is empty: delete it and download it again")
    # our own files start with the length of the header, 8 bytes of any value, and the header, a JSON object
    torch_file = head[:2] == b"PK" or head[:1] == b"\x80" or path.name.endswith((".pth.tar", ".pt", ".pth"))
    published = torch_file and head[8:] != b"{"
    with torch.inference_mode(False), torch.device("cpu"):  # whatever the caller's mode and default device are
        network, card = _read_published(path) if published else _read_own(path)
    return network.requires_grad_(False).eval(), replace(card, sha256=digest)


def save(path: Path, network: MatRIS, card: Card) -> None:
    """
    Write a checkpoint in our own format: safetensors with config and card as JSON metadata. The write is atomic.

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
            draft.write_bytes(safetensors.torch.save(tensors, metadata))  # save_file writes mode 600
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot write checkpoint {path}: {error}") from error


def _read_own(path: Path) -> tuple[MatRIS, Card]:
    """Read our own format: safetensors with metadata."""
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
    """Read the published format: a torch file of config and state dict. No code in the file is executed."""
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
    if entry is not None:
        entry = _if_it_is(entry, path)
    # an element without a reference energy was not in the training set
    trained = network.reference_energies.abs() > 1e-10  # noqa: PLR2004
    if not trained.any():
        trained = torch.ones_like(trained)
    elements = tuple(Element.from_Z(z).symbol for z in range(1, MAX_ATOMIC_NUMBER + 1) if trained[z - 1])
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
    Read a torch file of plain tensors and values; no code in the file is executed.

    Raises
    ------
    CheckpointError
        If the file is truncated or contains anything else.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # an unpickler can raise anything for a damaged file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path} is truncated, or not a file of plain tensors ({reason}); delete it and download or create it again"
        ) from error


def _load_state(network: MatRIS, state: Mapping[str, torch.Tensor], path: Path) -> None:
    """
    Take the weights of a network, in float32; an error names the tensor that does not fit.

    They take the place of the network's own, whose type is torch's default and may have fewer digits.
    """
    weights = {n: (t.float() if t.is_floating_point() else t).contiguous() for n, t in state.items()}
    try:
        network.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:3]]
        raise CheckpointError(f"{path} does not fit its own config: {' '.join(lines)}") from error
    for name, tensor in network.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{path}: {name} has NaN or infinite values")


def _if_it_is(entry: Published, path: Path) -> Published | None:
    """Confirm that a file is the published one whose name it has; a warning says if it is not."""
    actual, expected = file_sha256(path), entry.expected
    if expected is None:
        record(entry.file, actual)
    elif actual != expected:
        logger.warning(
            "%s is not %s, although it has its file's name: its SHA-256 is %s, expected %s. It is taken for a "
            "checkpoint of unknown origin and energy scale.",
            path, entry.key, actual, expected,
        )  # fmt: skip
        return None
    return entry


def _fetch(entry: Published) -> Path:
    """Path of a published file, which is downloaded if it is not in the cache, and verified."""
    if entry.path.exists():
        _verify(entry, entry.path, f"delete it to download it again, or load it by its path instead of {entry.key}")
        return entry.path
    remedy = (
        f"download {' or '.join(entry.urls)} by other means and place it at {entry.path}; MATRIS_CACHE names another "
        "folder"
    )
    reasons = []
    for url in entry.urls:
        try:
            with whole_file(entry.path) as draft:  # an unverified file must never be in the cache
                _download(entry, url, draft)
        except CheckpointError as error:
            reasons.append(str(error))
        except (urllib.error.URLError, TimeoutError, OSError, http.client.HTTPException) as error:
            reasons.append(f"{url}: {error}")
        else:
            _verify(entry, entry.path, remedy)
            return entry.path
    raise CheckpointError(f"cannot download {entry.key}: {'; '.join(reasons)}; {remedy}")


def _download(entry: Published, url: str, draft: Path) -> None:
    """Download a file from one of its addresses, and verify it."""
    with urllib.request.urlopen(url, timeout=_TIMEOUT) as response, draft.open("wb") as out:  # noqa: S310 - ours
        expected = response.headers.get("Content-Length")
        size = sum(out.write(block) for block in _blocks(response))
    if size == 0 or (expected is not None and size != int(expected)):
        raise CheckpointError(f"the download from {url} ended after {size} of {expected} bytes")
    try:
        read_file(draft)
    except CheckpointError as error:
        raise CheckpointError(f"the file at {url} is not a checkpoint ({error})") from error
    actual, wanted = file_sha256(draft), entry.expected
    if wanted not in (None, actual):
        raise CheckpointError(f"the file at {url} is not {entry.key}: its SHA-256 is {actual}, expected {wanted}")


def _verify(entry: Published, path: Path, remedy: str) -> None:
    """Refuse a file that has another SHA-256 than it should; that of a first file is recorded when it has been read."""
    try:
        actual = file_sha256(path)
    except OSError as error:
        raise CheckpointError(f"cannot read checkpoint {path}: {error}") from error
    expected = entry.expected
    if expected not in (None, actual):
        origin = "" if entry.sha256 else f", that of the file used first, recorded in {record_of(entry.file)}"
        raise CheckpointError(
            f"{path} is not {entry.key}: its SHA-256 is {actual}, expected {expected}{origin}; {remedy}"
        )


def _blocks(stream: Any) -> Iterator[bytes]:
    """Read a response block by block."""
    while block := stream.read(1 << 20):
        yield block
