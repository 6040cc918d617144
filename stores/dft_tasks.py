"""Labels from the documents that atomate2 writes about first-principles calculations."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
from pymatgen.core import Structure

from matris.errors import MatrisError
from matris.files.stored_objects import decode_structure
from matris.stores.dft_labels import DftLabel, DftResult
from matris.stores.dft_method import CODE, check_method, method_of
from matris.units import GPA

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from matris.stores.dft_method import Method

_KBAR = 0.1 / GPA  # eV/Å³
_NELM = 60  # VASP's default for the largest number of electronic steps
_ENDED = ("successful", True)


class TaskError(MatrisError):
    """A calculation that gives no label."""


def task_labels(
    task: Mapping[str, Any],
    candidate_id: str,
    energy_scale: str,
    *,
    ionic_steps: bool = False,
    code: str | None = None,
    functional: str | None = None,
    source: str | None = None,
) -> tuple[list[DftLabel], Counter[str]]:
    """
    Make labels of a task document: of the last geometry that was calculated and, if asked for, of the steps to it.

    Energies are those for σ → 0 (``e_0_energy``), as in MPtrj and MatPES, without corrections. atomate2's stresses, in
    kbar and positive under compression, are converted to eV/Å³, positive under tension. Geometries are those of the
    ionic steps, because VASP moves the atoms once more before it writes CONTCAR.

    Parameters
    ----------
    task
        ``TaskDoc`` of VASP, or a document of another code with the same ``output`` (``ForceFieldTaskDocument``), as a
        JSON object.
    candidate_id
        Candidate that was calculated.
    energy_scale
        Energy scale that the labels must be on.
    ionic_steps
        Whether to make labels of all ionic steps.
    code, functional
        Program and functional, for documents of codes other than VASP, which do not tell the functional.
    source
        Where the results come from.

    Returns
    -------
    list of DftLabel
        Labels in the order of the steps; the last one is that of the last geometry.
    Counter
        Number of ionic steps left out, by reason.

    Raises
    ------
    MethodError
        If the calculation is not on the energy scale.
    TaskError
        If energy or forces are missing, not finite or of a wrong shape, or the electrons of the last step did not
        converge.

    Examples
    --------
    >>> from pymatgen.core import Lattice, Structure
    >>> iron = Structure(Lattice.cubic(2.87), ["Fe"], [[0, 0, 0]])
    >>> stress = [[10.0, 0, 0], [0, 10.0, 0], [0, 0, 10.0]]  # kbar: 1 GPa of pressure
    >>> task = {"output": {"structure": iron.as_dict(), "energy": -8.3, "forces": [[0, 0, 0]], "stress": stress}}
    >>> labels, _ = task_labels(task, "iron", "mine", code="EMT", functional="EMT")
    >>> labels[0].dft.energy, round(labels[0].dft.stress[0][0], 5)
    (-8.3, -0.00624)
    """
    if not isinstance(task.get("output"), dict):
        raise TaskError(str(task.get("error") or "it is no document of a calculation, or of one that failed"))
    calculations = task.get("calcs_reversed") or []
    if calculations:
        method = task_method(task)
        check_method(method, _structure(task["output"]).composition, energy_scale)
        code, functional = CODE, method.functional
    elif code is None or functional is None:
        raise TaskError(
            "the document does not say with which functional it was calculated: name code and functional, for example "
            "LabelMaker(code='CP2K', functional='PBE')"
        )
    steps = _steps(task, calculations[0] if calculations else {})
    labels, left_out = [], Counter[str]()
    for number, step in enumerate(steps):
        is_last = number == len(steps) - 1
        if not (is_last or ionic_steps):
            continue
        if (fault := _fault(step)) is None:
            result = DftResult(
                **{name: step[name] for name in ("energy", "forces", "stress", "magmoms")},
                code=code,
                functional=functional,
                energy_scale=energy_scale,
            )
            labels.append(DftLabel.of(candidate_id, step["structure"], result, source))
        elif is_last:
            raise TaskError(fault)
        else:
            left_out[fault] += 1
    return labels, left_out


def task_method(task: Mapping[str, Any]) -> Method:
    """
    Read the method of a VASP task document.

    Raises
    ------
    TaskError
        If the document does not tell the settings or the POTCARs.
    """
    given = (task.get("calcs_reversed") or [{}])[0].get("input") or task.get("input") or {}
    incar, parameters = _mapping(given.get("incar")), _mapping(given.get("parameters"))
    titles = [spec["titel"] for spec in given.get("potcar_spec") or [] if spec.get("titel")]
    if not incar and not parameters:
        raise TaskError("the document does not tell the settings of VASP, so that its functional is not known")
    if not titles:
        raise TaskError("the document does not tell the POTCARs, so that its energy scale is not known")
    settings = {**parameters, **incar}
    settings.setdefault("ENCUT", parameters.get("ENMAX"))
    return method_of(settings, _mapping(given.get("hubbards")), titles=titles)


def _steps(task: Mapping[str, Any], calculation: Mapping[str, Any]) -> Sequence[dict[str, Any]]:
    """Results of the ionic steps in our units; of the last geometry alone if the document keeps no steps."""
    output = task["output"]
    detail = calculation.get("output") or output
    limit = int(_mapping((calculation.get("input") or {}).get("parameters")).get("NELM") or _NELM)
    kept = detail.get("ionic_steps") or []
    with_geometry = [step for step in kept if (step.get("structure") or step.get("mol_or_struct"))]
    if not with_geometry:
        ended = calculation.get("has_vasp_completed", task.get("state"))
        unfinished = bool(calculation) and str(getattr(ended, "value", ended)) not in {str(each) for each in _ENDED}
        last = {**output, "structure": _structure(output), "is_converged": not unfinished}
        return [_in_our_units(last, _site_magmoms(output) if calculation else output.get("magmoms"))]
    steps = []
    for number, step in enumerate(with_geometry):
        is_last = number == len(with_geometry) - 1
        electronic = step.get("electronic_steps") or []
        n_steps = len(electronic) or step.get("num_electronic_steps") or 0
        content = {
            "structure": _structure({"structure": step.get("structure") or step.get("mol_or_struct")}),
            "energy": _energy(step, electronic) if calculation else step.get("energy"),
            "forces": step.get("forces"),
            "stress": step.get("stress"),
            "is_converged": not calculation or 0 < n_steps < limit,
        }
        if is_last and not calculation:
            content |= {name: output[name] for name in ("energy", "forces", "stress") if output.get(name) is not None}
        magmoms = step.get("magmoms") if not calculation else _site_magmoms(detail) if is_last else None
        steps.append(_in_our_units(content, magmoms))
    return steps


def _energy(step: Mapping[str, Any], electronic: Sequence[Mapping[str, Any]]) -> float | None:
    """Energy for σ → 0: VASP writes a wrong one at the end of some steps, so that it is that of the electronic step."""
    last = electronic[-1] if electronic else {}
    parts = step.get("e_fr_energy"), last.get("e_0_energy"), last.get("e_fr_energy")
    if None in parts:
        return step.get("e_0_energy")
    free, zero_of_last, free_of_last = parts
    return round(free + zero_of_last - free_of_last, 8)  # type: ignore[operator]


def _in_our_units(step: Mapping[str, Any], magmoms: Any) -> dict[str, Any]:
    """Convert a stress in kbar, positive under compression, to eV/Å³, positive under tension."""
    stress = step.get("stress")
    if stress is not None:
        array = np.asarray(stress, dtype=float)
        stress = (-_KBAR * array).tolist() if array.shape == (3, 3) else array.tolist()
    return {**step, "stress": stress, "magmoms": None if magmoms is None else [float(m) for m in magmoms]}


def _fault(step: Mapping[str, Any]) -> str | None:
    """Say why a step gives no label, in words that all steps with the same fault share."""
    if not step["is_converged"]:
        return "the electrons did not converge within NELM steps"
    n_atoms = len(step["structure"])
    for name, shape in (("energy", ()), ("forces", (n_atoms, 3)), ("stress", (3, 3)), ("magmoms", (n_atoms,))):
        value = step[name]
        if value is None:
            if name in {"energy", "forces"}:
                return f"the calculation has no {name}"
            continue
        array: NDArray[np.float64] = np.asarray(value, dtype=float)
        if array.shape != shape:
            return f"the {name} have the shape {array.shape} instead of {shape}"
        if not np.isfinite(array).all():
            return f"the {name} are not finite"
    return None


def _structure(output: Mapping[str, Any]) -> Structure:
    """Geometry without moments, velocities and constraints, which are no part of a label."""
    content = output.get("structure")
    if content is None:
        raise TaskError("the calculation has no structure")
    found = decode_structure(json.loads(content) if isinstance(content, str) else content)
    return Structure(found.lattice, found.species, found.frac_coords)


def _site_magmoms(output: Mapping[str, Any]) -> list[float] | None:
    """Moments that VASP projects on the sites, which emmet writes into the last structure."""
    content = output.get("structure") or {}
    sites = (json.loads(content) if isinstance(content, str) else content).get("sites") or []
    moments: list[Any] = [(site.get("properties") or {}).get("magmom") for site in sites]
    return moments if moments and all(isinstance(moment, int | float) for moment in moments) else None


def _mapping(content: Any) -> dict[str, Any]:
    """Decode a mapping, which emmet may store as a text of JSON."""
    return json.loads(content) if isinstance(content, str) else dict(content or {})
