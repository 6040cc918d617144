"""The potential that a board measures: a checkpoint, or a peer named by the code that makes it."""

from __future__ import annotations

import ast
import re
import sys
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from torch_sim.models.interface import ModelInterface

from matris.ase_model import AseModel
from matris.boards.other_python import OtherPython
from matris.errors import BoardError
from matris.model.potential import Potential, load
from matris.relaxation.relax import Engine, engine_of

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Contestant:
    """
    A potential with what identifies it.

    Attributes
    ----------
    name
        Key of the checkpoint, or name of the peer.
    model
        A loaded potential or a torch-sim model.
    energy_scale
        Scale of the energies, see `matris.stores.documents.corrections.correction_scheme`.
    """

    name: str
    model: Potential | ModelInterface
    energy_scale: str

    @cached_property
    def engine(self) -> Engine:
        """The model with its digest."""
        return engine_of(self.model)

    def describe(self) -> dict[str, Any]:
        """Return what identifies the results: name, digest, energy scale, digits."""
        return {
            "name": self.name,
            "sha256": self.engine.sha256,
            "energy_scale": self.energy_scale,
            "dtype": self.engine.dtype,
        }


def checkpoint(key: str | None, device: str | None = None, dtype: str | None = None) -> Contestant:
    """
    Load a checkpoint: published, embedded, or fine-tuned.

    Examples
    --------
    >>> contestant = checkpoint(None, device="cpu")
    >>> contestant.name, contestant.energy_scale
    ('matris_embedded', 'mp')
    """
    potential = load(key, device=device, dtype=dtype)
    return Contestant(potential.card.key, potential, potential.card.energy_scale)


def peer(text: str, python: Path | None = None, energy_scale: str = "mp", name: str | None = None) -> Contestant:
    """
    Make a peer from the call that makes its ASE calculator or torch-sim model.

    Parameters
    ----------
    text
        ``MODULE:CLASS(argument, key=value, …)``; arguments are literals, parentheses may be left out.
    python
        Interpreter of another environment, which has the module, ASE and numpy, and not this package: its process
        makes the calculator and computes. By default this process does.
    energy_scale
        Scale of the peer's energies.
    name
        Name of the peer; by default `text`.

    Raises
    ------
    BoardError
        If the text is no such call, or the call fails.

    Examples
    --------
    >>> peer("ase.calculators.emt:EMT").model.calculator.name
    'emt'
    >>> peer("ase.calculators.lj:LennardJones(sigma=3.4, rc=8.0)").model.calculator.parameters["sigma"]
    3.4
    >>> peer("ase.calculators.emt:Emt")
    Traceback (most recent call last):
    matris.errors.BoardError: ase.calculators.emt:Emt: ... has no attribute 'Emt'
    """
    module, function, arguments, options = parse_call(text)
    if python is not None:
        made: Any = OtherPython(str(python), module, function, arguments, options)
        identity = f"{text} {made.versions}"
    else:
        try:
            made = getattr(import_module(module), function)(*arguments, **options)
        except Exception as error:  # a peer's constructor raises anything
            raise BoardError(f"{text}: {error}") from error
        identity = f"{text} {_version(module)}"
    model = made if isinstance(made, ModelInterface) else AseModel(made, identity)
    return Contestant(name or text, model, energy_scale)


def is_call(text: str) -> bool:
    """
    Whether a text has the form that `peer` takes, as opposed to a key or a path.

    Examples
    --------
    >>> is_call("ase.calculators.emt:EMT"), is_call("matris_10m_mp"), is_call("results/mine.safetensors")
    (True, False, False)
    """
    return re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*(\(.*\))?", text, re.DOTALL) is not None


def parse_call(text: str) -> tuple[str, str, list[Any], dict[str, Any]]:
    """
    Split the text of a call.

    Returns
    -------
    tuple
        Module, name in the module, positional and named arguments.

    Raises
    ------
    BoardError
        If it is something else, or an argument is no literal.

    Examples
    --------
    >>> parse_call("package.module:Calculator('a', size=3)")
    ('package.module', 'Calculator', ['a'], {'size': 3})
    """
    module, _, rest = text.partition(":")
    try:
        call = ast.parse(rest.strip(), mode="eval").body
        made = call if isinstance(call, ast.Call) else ast.Call(call, [], [])
        arguments = [ast.literal_eval(argument) for argument in made.args]
        options = {str(word.arg): ast.literal_eval(word.value) for word in made.keywords}
        name = made.func.id if isinstance(made.func, ast.Name) else ""
    except (SyntaxError, ValueError):
        name = ""
    if not name or not all(part.isidentifier() for part in module.split(".")):
        raise BoardError(f"{text!r} is no peer: write MODULE:CLASS(key=value, …), with literal values")
    return module, name, arguments, options


def _version(module: str) -> str:
    package = module.partition(".")[0]
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"{package} from {getattr(sys.modules.get(package), '__file__', 'unknown')}"
