"""Checkpoint files: what loads, what is refused and how it is said, the cache and the download."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

import matris
from matris.errors import CheckpointError, MatrisError
from matris.model import checkpoints
from matris.model.checkpoints import REGISTRY, Card
from tests.matris.golden import golden, golden_potential, published_state, structures


def write_published(path, name="released_small", *, nested=False, **changes):
    """A file as the authors publish them."""
    case = golden()["cases"][name]
    content = {
        "config": {**case["config"], **changes.pop("config", {})},
        "state_dict": published_state(case),
        **changes,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": content} if nested else content, path)
    return path


def energy(potential):
    return potential.predict(structures()["NaCl8"]).energy


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("name", ["released_small", "sh_rms"])
def test_published_file_loads_exactly(tmp_path, nested, name):
    potential = matris.load(write_published(tmp_path / "x.pth.tar", name, nested=nested), device="cpu")
    assert energy(potential) == pytest.approx(energy(golden_potential(name, torch.float32)), abs=1e-6)
    assert potential.card.energy_scale == "unknown"
    assert len(potential.card.sha256) == 64


def test_old_name_of_the_element_energies(tmp_path):
    case = golden()["cases"]["released_small"]
    state = published_state(case)
    state["composition_model.fc.weight"] = state.pop("reference_energy.fc.weight")
    potential = matris.load(write_published(tmp_path / "old.pth.tar", state_dict=state), device="cpu")
    assert energy(potential) == pytest.approx(energy(golden_potential("released_small", torch.float32)), abs=1e-6)


def test_own_format_round_trip(tmp_path):
    original = golden_potential("released_uneven", torch.float32)
    card = Card("mine", energy_scale="mp", predicts="efsm", elements=("Na", "Cl"), details={"errors": {"x": 1.5}})
    checkpoints.save(tmp_path / "mine.safetensors", original.network, card)
    potential = matris.load(tmp_path / "mine.safetensors", device="cpu")
    assert energy(potential) == energy(original)
    assert potential.card.to_dict() == {**card.to_dict(), "sha256": potential.card.sha256}
    assert potential.elements == ("Na", "Cl")


def test_registry_states_what_users_must_know():
    assert len(REGISTRY) == 7
    assert {entry.energy_scale for entry in REGISTRY.values()} == {"mp", "omat24", "matpes-pbe", "matpes-r2scan"}
    assert REGISTRY["matris_10m_oam"].predicts == "efsm"
    assert REGISTRY["matris_10m_omat"].predicts == "efs"
    assert all(entry.url.endswith(entry.file) for entry in REGISTRY.values())


def test_a_file_placed_in_the_cache_is_used(tmp_path, monkeypatch):
    monkeypatch.setenv("MATRIS_CACHE", str(tmp_path))
    write_published(tmp_path / REGISTRY["matris_10m_omat"].file)
    potential = matris.load("matris_10m_omat", device="cpu")
    assert potential.card.key == "matris_10m_omat"
    assert potential.card.energy_scale == "omat24"
    assert not potential.has_magmoms  # it has the head, but was not trained for it
    # the golden element energies are zero for what MPtrj lacks
    assert "Fe" in potential.elements
    assert "Po" not in potential.elements


def with_digest(monkeypatch, key, sha256):
    monkeypatch.setitem(REGISTRY, key, replace(REGISTRY[key], sha256=sha256))


def test_known_digests():
    assert {key: entry.sha256 for key, entry in REGISTRY.items() if entry.sha256} == {
        "matris_10m_oam": "c033abc53601a74f10d9b7fec0f658220c013c3b11d4d405f1d32136d4c2b067"
    }


def test_a_cached_file_of_another_digest_is_refused_by_its_key(tmp_path, monkeypatch):
    monkeypatch.setenv("MATRIS_CACHE", str(tmp_path))
    entry = REGISTRY["matris_10m_oam"]
    path = write_published(tmp_path / entry.file)
    actual = checkpoints.file_sha256(path)
    with pytest.raises(MatrisError) as caught:
        matris.load("matris_10m_oam", device="cpu")
    message = str(caught.value)
    for part in (str(path), actual, entry.sha256, "delete it", "load it by its path"):
        assert part in message
    card = matris.load(path, device="cpu").card
    assert (card.key, card.energy_scale, card.sha256) == (entry.file, "unknown", actual)


def test_a_cached_file_of_the_known_digest_is_used(tmp_path, monkeypatch):
    monkeypatch.setenv("MATRIS_CACHE", str(tmp_path))
    path = write_published(tmp_path / REGISTRY["matris_10m_oam"].file)
    with_digest(monkeypatch, "matris_10m_oam", hashlib.sha256(path.read_bytes()).hexdigest())
    assert matris.load("matris_10m_oam", device="cpu").card.energy_scale == "mp"
    assert matris.load(path, device="cpu").card.key == "matris_10m_oam"
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(CheckpointError, match="SHA-256"):
        matris.load("matris_10m_oam", device="cpu")


def state_with(change):
    state = published_state(golden()["cases"]["released_small"])
    change(state)
    return state


BROKEN = {
    "renamed": lambda s: s.update({"readout_norm.wight": s.pop("readout_norm.weight")}),
    "misshapen": lambda s: s.update({"readout_norm.weight": torch.ones(7)}),
    "transposed": lambda s: s.update(
        {"edge_embedding.edge_linear1.weight": s["edge_embedding.edge_linear1.weight"].T.contiguous()}
    ),
    "NaN": lambda s: s["readout_norm.weight"].fill_(torch.nan),
}
SAYS = {"renamed": "missing.*readout_norm", "misshapen": "shape", "transposed": "shape", "NaN": "NaN"}


@pytest.mark.parametrize("kind", BROKEN)
def test_wrong_tensors_give_one_clear_error(tmp_path, kind):
    path = write_published(tmp_path / "broken.pth.tar", state_dict=state_with(BROKEN[kind]))
    with pytest.raises(CheckpointError, match=SAYS[kind]) as caught:
        matris.load(path, device="cpu")
    assert "broken.pth.tar" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"is_conservation": False}, "is_conservation"),
        ({"num_angular": 9}, "num_angular"),
        ({"flux_capacitor": 1}, "flux_capacitor"),
        ({"norm_type": "batch"}, "norm_type"),
        ({"num_layers": "many"}, "config"),
        ({"node_feat_dim": 64}, "shape"),
    ],
)
def test_configs_that_are_refused(tmp_path, changes, says):
    with pytest.raises(CheckpointError, match=says):
        matris.load(write_published(tmp_path / "c.pth.tar", config=changes), device="cpu")


def test_truncated_foreign_and_empty_files(tmp_path):
    whole = write_published(tmp_path / "whole.pth.tar").read_bytes()
    foreign = tmp_path / "foreign.pth.tar"
    torch.save({"weights": torch.ones(3)}, foreign)
    cases = {
        "truncated.pth.tar": (whole[: len(whole) // 2], "truncated"),
        "text.pth.tar": (b"<html>403 Forbidden</html>", "truncated, or not"),
        "empty.pth.tar": (b"", "empty"),
        "foreign.pth.tar": (foreign.read_bytes(), "no config and state_dict"),
        "text.safetensors": (b"not tensors", "truncated or not"),
    }
    for name, (content, says) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=says) as caught:
            matris.load(tmp_path / name, device="cpu")
        assert name in str(caught.value)


def test_own_format_truncated_and_foreign(tmp_path):
    potential = golden_potential("released_small", torch.float32)
    path = tmp_path / "own.safetensors"
    checkpoints.save(path, potential.network, Card("own"))
    (tmp_path / "cut.safetensors").write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="truncated"):
        matris.load(tmp_path / "cut.safetensors", device="cpu")
    save_file({"a": torch.ones(2)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="not a matris-checkpoint-1"):
        matris.load(tmp_path / "other.safetensors", device="cpu")
    tensors = load_file(path)
    tensors.pop("energy_head.0.weight")
    metadata = {
        "format": checkpoints.FORMAT,
        "config": json.dumps(potential.config.to_dict()),
        "card": json.dumps(Card("own").to_dict()),
    }
    save_file(tensors, tmp_path / "lacking.safetensors", metadata)
    with pytest.raises(CheckpointError, match=r"energy_head\.0\.weight"):
        matris.load(tmp_path / "lacking.safetensors", device="cpu")


class Malicious:
    def __reduce__(self):
        return (print, ("executed",))


def test_nothing_in_a_file_is_executed(tmp_path, capsys):
    torch.save({"config": Malicious(), "state_dict": {}}, tmp_path / "evil.pth.tar")
    with pytest.raises(CheckpointError, match="plain tensors"):
        matris.load(tmp_path / "evil.pth.tar", device="cpu")
    assert "executed" not in capsys.readouterr().out


def test_unknown_key_device_and_dtype():
    with pytest.raises(CheckpointError, match="matris_10m_oam"):
        matris.load("matris_100m")
    with pytest.raises(CheckpointError, match="dtype"):
        matris.load(dtype="bfloat16")
    with pytest.raises(CheckpointError, match="no device"):
        matris.load(device="abacus")


def test_the_same_file_is_loaded_once(tmp_path):
    path = write_published(tmp_path / "x.pth.tar")
    assert matris.load(path, device="cpu") is matris.load(path, device="cpu")
    assert matris.load(path, device="cpu") is not matris.load(path, device="cpu", dtype="float64")


@pytest.fixture
def release(tmp_path, monkeypatch):
    """A server on loopback in the place of the release; put files into the folder it returns."""
    folder = tmp_path / "release"
    folder.mkdir()
    monkeypatch.setenv("MATRIS_CACHE", str(tmp_path / "cache"))

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(checkpoints, "_RELEASE", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(checkpoints, "_FIGSHARE", f"http://127.0.0.1:{server.server_port}/second")
    (folder / "second").mkdir()
    yield folder
    server.shutdown()
    server.server_close()


def test_download_is_verified_and_then_cached(release):
    entry = REGISTRY["matris_10m_mp"]
    write_published(release / entry.file)
    potential = matris.load(entry.key, device="cpu")
    assert potential.card.key == entry.key
    assert entry.path.read_bytes() == (release / entry.file).read_bytes()
    (release / entry.file).unlink()
    assert matris.load(entry.key, device="cpu", dtype="float64").card.key == entry.key


@pytest.mark.parametrize("served", [None, b"", b"<html>a firewall's page</html>"], ids=["404", "empty", "page"])
def test_failed_download_leaves_no_file_and_says_the_way_out(release, served):
    entry = REGISTRY["matris_10m_mp"]
    if served is not None:
        (release / entry.file).write_bytes(served)
    with pytest.raises(CheckpointError) as caught:
        matris.load(entry.key, device="cpu")
    assert str(entry.path) in str(caught.value)
    assert entry.url in str(caught.value)
    assert not list(entry.path.parent.iterdir())


def test_a_download_of_another_digest_is_refused(release, monkeypatch):
    entry = REGISTRY["matris_10m_oam"]
    path = write_published(release / entry.file)
    with pytest.raises(CheckpointError, match=f"expected {entry.sha256}") as caught:
        matris.load(entry.key, device="cpu")
    assert str(entry.path) in str(caught.value)
    assert not list(entry.path.parent.iterdir())
    with_digest(monkeypatch, entry.key, hashlib.sha256(path.read_bytes()).hexdigest())
    assert matris.load(entry.key, device="cpu").card.key == entry.key


@pytest.mark.parametrize("first", [None, b"", b"<html>a firewall's page</html>", "another"])
def test_the_second_address_serves_what_the_first_does_not(release, monkeypatch, first):
    entry = REGISTRY["matris_10m_oam"]
    assert entry.urls[1].endswith("/59142728")
    right = write_published(release / "second" / "59142728").read_bytes()
    with_digest(monkeypatch, entry.key, hashlib.sha256(right).hexdigest())
    if first == "another":
        write_published(release / entry.file, extra=7)
    elif first is not None:
        (release / entry.file).write_bytes(first)
    assert matris.load(entry.key, device="cpu").card.key == entry.key
    assert entry.path.read_bytes() == right
    assert [path.name for path in entry.path.parent.iterdir()] == [entry.file]


def test_a_second_address_with_another_file_is_refused(release):
    """Neither is the pinned file: both are named, and nothing is kept."""
    entry = REGISTRY["matris_10m_oam"]
    write_published(release / "second" / str(entry.figshare))
    with pytest.raises(CheckpointError) as caught:
        matris.load(entry.key, device="cpu")
    assert "404" in str(caught.value)
    assert f"{entry.urls[1]} is not matris_10m_oam" in str(caught.value)
    assert not list(entry.path.parent.iterdir())


@pytest.mark.parametrize("entry", REGISTRY.values(), ids=REGISTRY)
def test_every_published_file_has_two_addresses(entry):
    assert len(set(entry.urls)) == 2
    assert entry.urls[0].startswith("https://github.com/")
    assert entry.urls[1] == f"https://api.figshare.com/v2/file/download/{entry.figshare}"


def test_the_first_file_of_a_key_is_recorded_and_another_is_refused(release, caplog):
    entry = REGISTRY["matris_10m_mp"]
    first = write_published(release / entry.file).read_bytes()
    digest = hashlib.sha256(first).hexdigest()
    matris.load(entry.key, device="cpu")
    assert digest in caplog.text
    assert "nobody states its SHA-256" in caplog.text
    record = entry.path.with_name(f"{entry.file}.sha256")
    assert record.read_text() == f"{digest}\n"
    caplog.clear()
    matris.load(entry.key, device="cpu", dtype="float64")
    assert not caplog.text  # once

    write_published(entry.path, extra=7)
    with pytest.raises(CheckpointError, match=rf"is not matris_10m_mp.*{digest}, that of the file used first.*sha256"):
        matris.load(entry.key, device="cpu")
    entry.path.unlink()
    write_published(release / entry.file, extra=7)
    (release / "second" / str(entry.figshare)).write_bytes(first)
    assert matris.load(entry.key, device="cpu").card.sha256 == digest  # the second address still has it
    record.unlink()
    entry.path.unlink()
    assert matris.load(entry.key, device="cpu").card.sha256 != digest


def test_a_damaged_file_is_not_recorded(release):
    entry = REGISTRY["matris_10m_mp"]
    whole = write_published(release / entry.file).read_bytes()
    entry.path.parent.mkdir()
    entry.path.write_bytes(whole[:-1000])
    with pytest.raises(CheckpointError, match="truncated"):
        matris.load(entry.key, device="cpu")
    entry.path.write_bytes(whole)
    assert matris.load(entry.key, device="cpu").card.key == entry.key


@pytest.mark.parametrize("key", ["matris_10m_oam", "matris_10m_mp"])
@pytest.mark.usefixtures("release")
def test_a_file_that_is_not_what_its_name_says(tmp_path, caplog, monkeypatch, key):
    """Its energy scale is not taken from its name."""
    entry = REGISTRY[key]
    right = write_published(tmp_path / entry.file)
    if entry.sha256:
        with_digest(monkeypatch, key, hashlib.sha256(right.read_bytes()).hexdigest())
    assert matris.load(right, device="cpu").card.energy_scale == "mp"
    (tmp_path / "mine").mkdir()
    caplog.clear()
    card = matris.load(write_published(tmp_path / "mine" / entry.file, extra=7), device="cpu").card
    assert (card.key, card.energy_scale) == (entry.file, "unknown")
    assert f"is not {key}, although it has its file's name" in caplog.text


def test_a_header_of_any_length_is_ours(tiny_checkpoint, tmp_path):
    network, card = checkpoints.read_file(tiny_checkpoint)
    heads = set()
    for extra in range(0, 256, 8):
        path = tmp_path / "own.safetensors"
        checkpoints.save(path, network, replace(card, description="x" * extra))
        assert checkpoints.read_file(path)[1].description == "x" * extra
        heads.add(path.read_bytes()[:1])
    assert b"\x80" in heads  # as pickles begin
