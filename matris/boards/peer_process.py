"""
Serve an ASE calculator over standard input and output, one JSON object a line.

A script, run by the interpreter of the calculator's environment (`matris.boards.other_python`): it imports nothing of
this package, and keeps to the syntax of older Python versions. NaN and infinity travel as Python's json writes them.
"""

import importlib
import json
import os
import sys
from importlib.metadata import PackageNotFoundError, version

import ase
from ase import Atoms
from ase.calculators.calculator import Calculator


def serve() -> None:
    """Make the calculator that the first line asks for, then answer a structure a line."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the calculator prints must not mix with the answers
    calculator = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if calculator is None:
                module = importlib.import_module(request["module"])
                calculator = getattr(module, request["name"])(*request["arguments"], **request["options"])
                properties = list(calculator.implemented_properties)
                answer = {"properties": properties, "versions": _versions(request["module"])}
            else:
                answer = _computed(calculator, request)
        except Exception as error:  # noqa: BLE001 - the other side decides what it means
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _computed(calculator: Calculator, request: dict) -> dict:
    atoms = Atoms(**request)
    atoms.calc = calculator
    stress = None
    if "stress" in calculator.implemented_properties and atoms.pbc.all():
        stress = atoms.get_stress(voigt=False).tolist()
    return {"energy": float(atoms.get_potential_energy()), "forces": atoms.get_forces().tolist(), "stress": stress}


def _versions(module: str) -> str:
    package = module.partition(".")[0]
    try:
        of_package = version(package)
    except PackageNotFoundError:
        of_package = "without version"
    return f"Python {sys.version_info[0]}.{sys.version_info[1]}, ase {ase.__version__}, {package} {of_package}"


if __name__ == "__main__":
    serve()
