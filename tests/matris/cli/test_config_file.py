"""Options from a file: the same keys, values and errors as on the command line, which comes first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import pytest
import typer
from typer.testing import CliRunner

from matris.cli import app
from matris.cli.config_file import configurable
from matris.cli.options import ChunkSize, Files, Fmax, Store, Submit  # noqa: TC001 - typer reads the signature

toy = typer.Typer()


@toy.command()
@configurable
def compute(
    files: Files,
    output: Annotated[Path, typer.Option("--output", "-o")] = Path("relaxed"),
    relax_cell: Annotated[bool, typer.Option("--relax-cell/--fixed-cell")] = True,
    form: Annotated[Literal["table", "no"], typer.Option("--format")] = "table",
    then: Annotated[str | None, typer.Option()] = None,
    resource: Annotated[list[str] | None, typer.Option()] = None,
    fmax: Fmax = 0.05,
    chunk_size: ChunkSize = 500,
    submit: Submit = False,
    store: Store = None,
) -> None:
    print(json.dumps({**locals(), "files": list(map(str, files)), "output": str(output)}))  # noqa: T201


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.cif", "b.cif"):
        Path(name).touch()


def read(content: str, *arguments: str) -> dict[str, object]:
    Path("run.yaml").write_text(content, encoding="utf-8")
    result = CliRunner().invoke(toy, [*arguments, "--config", "run.yaml"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)  # type: ignore[no-any-return]


def refused(content: str, *arguments: str) -> str:
    Path("run.yaml").write_text(content, encoding="utf-8")
    result = CliRunner().invoke(toy, [*arguments, "--config", "run.yaml"], env={"COLUMNS": "200"})
    assert result.exit_code == 2, result.output
    return " ".join(result.stderr.replace("│", " ").split())


def test_values_are_those_of_the_command_line() -> None:
    content = """
        files: [a.cif, b.cif]
        output: done
        fixed-cell: true
        format: no              # no text, not a truth value
        then: [phonon, elastic]
        resource: [time=02:00:00, mem=4G]
        fmax: 1e-3
        chunk_size: 20
        submit: true
        store:
    """
    assert read(content) == {
        "files": ["a.cif", "b.cif"],
        "output": "done",
        "relax_cell": False,
        "form": "no",
        "then": "phonon,elastic",
        "resource": ["time=02:00:00", "mem=4G"],
        "fmax": 1e-3,
        "chunk_size": 20,
        "submit": True,
        "store": None,
    }


def test_the_command_line_comes_first() -> None:
    found = read("files: a.cif\nfmax: 0.01\nchunk-size: 7", "b.cif", "--fmax", "0.2")
    assert (found["files"], found["fmax"], found["chunk_size"]) == (["b.cif"], 0.2, 7)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("fmx: 0.1", "run.yaml: matris compute has no option 'fmx'; did you mean fmax?"),
        ("o: x", "has no option 'o'"),
        ("form: table", "has no option 'form'; did you mean format"),
        ("config: other.yaml", "has no option 'config'"),
        ("fmax: small", "Invalid value for '--fmax': Input should be a valid number"),
        ("fmax: -1", "Invalid value for '--fmax': Input should be greater than"),
        ("fmax: {a: 1}", "fmax must be a value, or a list of values"),
        ("submit: maybe", "submit is 'maybe', and must be true or false"),
        ("files: c.cif", "'c.cif' does not exist"),
        ("- fmax", "run.yaml holds no options: write lines such as"),
        ("fmax: [", "run.yaml cannot be read"),
        ("fmax: 1\nfmax: 2", "duplicate key"),
        ("store: mongodb://me:Zx9p@host/d", "holds a password and others may read it: chmod 600 run.yaml"),
    ],
)
def test_what_is_wrong_is_named(content: str, told: str) -> None:
    arguments = [] if "files" in content else ["a.cif"]
    message = refused(content, *arguments)
    assert told in message
    assert "Zx9p" not in message


def test_a_private_file_may_hold_a_password() -> None:
    Path("run.yaml").touch(mode=0o600)
    assert read("store: mongodb://me:Zx9p@host/d", "a.cif")["store"] == "mongodb://me:Zx9p@host/d"


def test_all_commands_that_compute_read_files() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    having = {name for name, c in commands.items() if any(p.name == "config" and p.is_eager for p in c.params)}
    computing = {
        "screen",
        "learn",
        "relax",
        "board",
        "elastic",
        "eos",
        "phonon",
        "qha",
        "kappa",
        "neb",
        "defects",
        "surfaces",
        "md",
        "diffusion",
        "data",
        "label",
        "finetune",
        "evaluate",
    }
    assert having == computing
    Path("run.yaml").write_text("chemsys: Xx-O\nchunk-size: 3\ncompetitors: no\n", encoding="utf-8")
    result = CliRunner().invoke(app, ["screen", "--config", "run.yaml"])
    assert result.exit_code == 1
    assert "there is no element 'Xx'" in result.stderr
