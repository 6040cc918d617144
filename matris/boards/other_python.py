"""An ASE calculator that lives in another environment, behind two pipes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from matris.errors import BoardError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms

_SCRIPT = Path(__file__).with_name("peer_process.py")


class OtherPython(Calculator):
    """
    A calculator of an environment that cannot hold this package, such as one of another Python version.

    Its process runs `matris/boards/peer_process.py`, which needs ASE and numpy alone, and ends with this
    object. If it dies, it is started again for the next structure.

    Parameters
    ----------
    python
        The environment's interpreter.
    module, name, arguments, options
        The call that makes the calculator there.

    Attributes
    ----------
    versions
        Python, ASE, and the module's package.

    Raises
    ------
    BoardError
        If the process does not start, or the call fails.
    """

    implemented_properties: ClassVar[list[str]] = []

    def __init__(
        self, python: str, module: str, name: str, arguments: Sequence[Any] = (), options: dict[str, Any] | None = None
    ) -> None:
        super().__init__()
        self._python = python
        self._call = {"module": module, "name": name, "arguments": list(arguments), "options": options or {}}
        self._process: subprocess.Popen[str] | None = None
        made = self._start()
        self.implemented_properties = made["properties"]  # type: ignore[misc] # those of the instance
        self.versions: str = made["versions"]

    def _start(self) -> dict[str, Any]:
        """Start the process, and make the calculator in it."""
        try:
            self._process = subprocess.Popen(  # noqa: S603 - the user names the interpreter
                [self._python, "-u", str(_SCRIPT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        except OSError as error:
            raise BoardError(f"{self._python} does not start: {error}") from error
        return self._ask(self._call)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Compute energy, forces and, where the peer implements it, stress."""
        super().calculate(atoms, properties, system_changes)
        answer = self._ask(
            {
                "numbers": self.atoms.numbers.tolist(),
                "positions": self.atoms.positions.tolist(),
                "cell": self.atoms.cell.array.tolist(),
                "pbc": self.atoms.pbc.tolist(),
            }
        )
        self.results = {"energy": answer["energy"], "forces": np.array(answer["forces"])}
        if answer["stress"] is not None:
            self.results["stress"] = full_3x3_to_voigt_6_stress(np.array(answer["stress"]))

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send a request, and wait for the answer; a process that died with the request before is started again."""
        if self._process is None:
            self._start()
        process = cast("subprocess.Popen[str]", self._process)
        try:
            print(json.dumps(request), file=process.stdin, flush=True)
            line = cast("IO[str]", process.stdout).readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self._process = None
            raise BoardError(f"the peer's process died (exit status {process.wait()}); its output says why")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise BoardError(answer["error"])
        return answer
