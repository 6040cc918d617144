"""First-principles labels of candidates: calculations by atomate2, and a job that makes labels of their documents."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jobflow import CURRENT_JOB, Flow, Job, JobConfig, Maker, OnMissing, job
from monty.json import jsanitize
from pymatgen.core import Structure

from matris.errors import MatrisError
from matris.stores.dft_labels import DftLabels, LabelDocument
from matris.stores.dft_method import OMAT24_POTCARS, VASP_SCALES, MethodError, check_method, check_scale, method_of
from matris.stores.dft_tasks import TaskError, task_labels
from matris.structures import content_id

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from atomate2.vasp.jobs.base import BaseVaspMaker

    from matris.stores.dft_method import Method

NO_OUTPUT = "the calculation gave no output: its job failed or was stopped"
"""Error of a label whose calculation failed; the manager of the jobs knows the reason."""


@dataclass
class LabelMaker(Maker):
    """
    Calculate a candidate from first principles, and make labels for training of the results.

    Wraps any Maker whose last job ends in a structure with energy, forces and stress. By default, atomate2's VASP flows
    with the settings of an energy scale. For ``mp``, two relaxations and a static calculation with those of the
    Materials Project (PBE, with U in oxides and fluorides). For ``omat24``, the same with the POTCARs of OMat24. For
    ``matpes-pbe`` and ``matpes-r2scan``, a relaxation and a static calculation with those of MatPES.

    Functional, Hubbard U, POTCARs, cutoff and spin polarization are checked before the job is made, by the inputs that
    the Maker of the last job would write, and again when VASP has run.

    Parameters
    ----------
    name
        Name of the flow.
    energy_scale
        Energy scale of the checkpoint that the labels are for.
    maker
        Maker of the calculation. Default: by `energy_scale`.
    static_only
        Whether the default Maker calculates the given geometry only, without relaxing it.
    ionic_steps
        Whether to make labels of the ionic steps of all VASP jobs too. A step whose electrons did not converge gives
        none.
    code, functional
        Program and functional of a Maker of another code than VASP, which documents do not tell.

    Examples
    --------
    >>> from pymatgen.core import Lattice, Structure
    >>> salt = Structure(Lattice.cubic(4.12), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    >>> flow = LabelMaker(energy_scale="matpes-pbe", static_only=True).make(salt)
    >>> [job.name for job in flow.jobs]
    ['MatPES GGA static', 'label CsCl']

    A wrong functional is refused:

    >>> from atomate2.vasp.jobs.matpes import MatPesMetaGGAStaticMaker
    >>> LabelMaker(energy_scale="mp", maker=MatPesMetaGGAStaticMaker()).make(salt)
    Traceback (most recent call last):
    matris.stores.dft_method.MethodError: CsCl is calculated with r2SCAN, but the energy scale mp needs PBE; ...
    """

    name: str = "label"
    energy_scale: str = "mp"
    maker: Maker | None = None
    static_only: bool = False
    ionic_steps: bool = False
    code: str | None = None
    functional: str | None = None

    def make(
        self,
        structure: Structure,
        prev_dir: str | Path | None = None,  # noqa: ARG002 - part of every Maker's signature
        *,
        candidate_id: str | None = None,
        location: str | None = None,
    ) -> Flow:
        """
        Make the flow of one candidate.

        Parameters
        ----------
        structure
            Geometry to start from. Magnetic moments of its sites are not used: the settings of the energy scale say
            which moments to start from.
        prev_dir
            Without effect.
        candidate_id
            Id of the candidate. Default: that of an input with this structure.
        location
            Store with the candidate, to which the last job adds the labels. Default: the labels are only in the job's
            output, and `matris.flows.labels.harvest.harvest_labels` adds them.

        Returns
        -------
        Flow
            Jobs of the calculation, and a job that makes the labels; the output is a
            `matris.stores.dft_labels.LabelDocument`.

        Raises
        ------
        MethodError
            If the calculation would not be on the energy scale.
        MatrisError
            If there is no default Maker for the energy scale, or a Maker of another code comes without its functional.
        """
        check_scale(self.energy_scale)
        bare = Structure(structure.lattice, structure.species, structure.frac_coords)
        maker = self.maker or calculation_maker(self.energy_scale, static_only=self.static_only)
        calculation = maker.make(bare)
        self._check(calculation, bare)
        jobs = _jobs(calculation)
        last = _last_job(calculation, jobs)
        others = [other.output for other in jobs if other is not last and self.ionic_steps and _is_vasp(other)]
        label = make_labels(
            [*others, calculation.output],
            candidate_id or content_id(structure),
            bare.composition.reduced_formula,
            self.energy_scale,
            ionic_steps=self.ionic_steps,
            code=self.code,
            functional=self.functional,
            location=location,
        )
        label.name = f"label {bare.composition.reduced_formula}"
        return Flow([calculation, label], output=label.output, name=f"{self.name} {bare.composition.reduced_formula}")

    def _check(self, calculation: Flow | Job, structure: Structure) -> None:
        """Check the method of the last job, as far as it is known before it runs."""
        last = _last_job(calculation, _jobs(calculation))
        if last is not None and _is_vasp(last):
            check_method(input_method(last.maker, structure), structure.composition, self.energy_scale)
        elif self.code is None or self.functional is None:
            raise MatrisError(
                f"the functional of {type(self.maker).__name__} is not known: name it, for example "
                "LabelMaker(code='CP2K', functional='PBE')"
            )


def calculation_maker(energy_scale: str, *, static_only: bool = False) -> Maker:
    """
    Make atomate2's Maker with the settings of an energy scale.

    Parameters
    ----------
    energy_scale
        One of `matris.stores.dft_method.VASP_SCALES`.
    static_only
        Whether to leave the relaxation out.

    Raises
    ------
    MatrisError
        For another energy scale.

    Examples
    --------
    >>> calculation_maker("mp").name, calculation_maker("matpes-r2scan", static_only=True).name
    ('MP GGA relax', 'MatPES meta-GGA static')
    """
    if energy_scale not in VASP_SCALES:
        raise MatrisError(
            f"no settings are known for the energy scale {energy_scale!r}, only for {', '.join(VASP_SCALES)}: give a "
            "Maker with the settings of your labels, LabelMaker(maker=…)"
        )
    from atomate2.vasp.flows.mp import MPGGADoubleRelaxMaker, MPGGADoubleRelaxStaticMaker
    from atomate2.vasp.jobs.base import BaseVaspMaker
    from atomate2.vasp.jobs.matpes import MatPesGGAStaticMaker, MatPesMetaGGAStaticMaker
    from atomate2.vasp.jobs.mp import MPGGARelaxMaker, MPGGAStaticMaker
    from pymatgen.io.vasp.sets import MatPESRelaxSet, MPRelaxSet, MPStaticSet

    if energy_scale == "mp":
        return MPGGAStaticMaker() if static_only else MPGGADoubleRelaxStaticMaker()
    if energy_scale == "omat24":
        potcars = {"user_potcar_functional": "PBE_54", "user_potcar_settings": OMAT24_POTCARS}
        common: dict[str, Any] = {**potcars, "force_gamma": True, "auto_metal_kpoints": True, "inherit_incar": False}
        static: Maker = MPGGAStaticMaker(input_set_generator=MPStaticSet(**common))
        relax: Maker = MPGGARelaxMaker(input_set_generator=MPRelaxSet(**common))
        relax = MPGGADoubleRelaxMaker(relax_maker1=relax, relax_maker2=relax)
    else:
        is_pbe = energy_scale == "matpes-pbe"
        static = MatPesGGAStaticMaker() if is_pbe else MatPesMetaGGAStaticMaker()
        settings: dict[str, Any] = {} if is_pbe else {"xc_functional": "R2SCAN", "user_incar_settings": {"GGA": None}}
        relax = BaseVaspMaker(name="MatPES relax", input_set_generator=MatPESRelaxSet(**settings))
    if static_only:
        return static
    return MPGGADoubleRelaxStaticMaker(name=f"{energy_scale} relax static", relax_maker=relax, static_maker=static)


def input_method(maker: BaseVaspMaker, structure: Structure) -> Method:
    """
    Read the method from the inputs that a Maker of VASP would write.

    Parameters
    ----------
    maker
        Maker of one job.
    structure
        What it would calculate.

    Examples
    --------
    >>> from atomate2.vasp.jobs.mp import MPGGAStaticMaker
    >>> from pymatgen.core import Lattice, Structure
    >>> oxide = Structure(Lattice.cubic(4.3), ["Fe", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    >>> method = input_method(MPGGAStaticMaker(), oxide)
    >>> method.functional, dict(method.hubbards), method.library
    ('PBE+U', {'Fe': 5.3}, 'PBE')
    """
    from atomate2 import SETTINGS

    generator = maker.input_set_generator
    inputs = generator.get_input_set(structure, potcar_spec=True)
    incar = {**inputs.incar, **SETTINGS.VASP_INCAR_UPDATES}
    symbols = inputs.poscar.site_symbols
    values, minus = incar.get("LDAUU") or [], incar.get("LDAUJ") or []
    reduced = [u - (minus[i] if i < len(minus) else 0) for i, u in enumerate(values)] if incar.get("LDAU") else []
    return method_of(
        incar,
        dict(zip(symbols, reduced, strict=False)),
        symbols=str(inputs.potcar).split(),
        library=getattr(generator, "potcar_functional", None) or getattr(generator, "user_potcar_functional", None),
    )


@job(data=["labels"], output_schema=LabelDocument, config=JobConfig(on_missing_references=OnMissing.NONE))
def make_labels(
    tasks: Sequence[Any],
    candidate_id: str,
    formula: str,
    energy_scale: str,
    *,
    ionic_steps: bool = False,
    code: str | None = None,
    functional: str | None = None,
    location: str | None = None,
) -> LabelDocument:
    """
    Make labels of the documents of a candidate's calculations.

    Parameters
    ----------
    tasks
        Documents; the last one is that of the last geometry, and None if its calculation failed. From the others, only
        ionic steps are taken.
    candidate_id, formula
        Candidate, and its reduced formula.
    energy_scale, ionic_steps, code, functional
        As for `matris.stores.dft_tasks.task_labels`.
    location
        As for `LabelMaker.make`.

    Returns
    -------
    LabelDocument
        Its state is ``"failed"`` if the last calculation gives no label.
    """
    source = CURRENT_JOB.job.uuid if CURRENT_JOB.job is not None else None
    document = LabelDocument(
        candidate_id=candidate_id, formula_pretty=formula, energy_scale=energy_scale, state="labelled"
    )
    left_out: Counter[str] = Counter()
    for number, task in enumerate(tasks):
        is_last = number == len(tasks) - 1
        try:
            labels, skipped = task_labels(
                _as_json(task),
                candidate_id,
                energy_scale,
                ionic_steps=ionic_steps,
                code=code,
                functional=functional,
                source=source,
            )
        except (TaskError, MethodError) as error:
            if is_last:
                document.state, document.error = "failed", str(error)
            else:
                left_out[str(error)] += 1
            continue
        document.labels += labels
        left_out += skipped
    if document.state == "failed":
        document.labels = []
    document.left_out = dict(left_out)
    if location is not None and document.labels:
        DftLabels(location).add(document.labels)
    return document


def _as_json(task: Any) -> dict[str, Any]:
    if task is None:
        raise TaskError(NO_OUTPUT)
    document: dict[str, Any] = jsanitize(task, strict=True, enum_values=True)
    return document


def _jobs(calculation: Flow | Job) -> list[Job]:
    return [each for each, _ in calculation.iterflow()] if isinstance(calculation, Flow) else [calculation]


def _last_job(calculation: Flow | Job, jobs: Sequence[Job]) -> Job | None:
    """Job whose output is that of the calculation; None if no job of the flow has it."""
    reference = calculation.output
    uuid = getattr(reference, "uuid", None)
    if uuid is None or getattr(reference, "attributes", False):
        raise MatrisError(
            f"the output of {calculation.name} is not the document of one job: give a Maker whose output is that of "
            "its last calculation"
        )
    return next((each for each in jobs if each.uuid == uuid), None)


def _is_vasp(calculation: Job) -> bool:
    from atomate2.vasp.jobs.base import BaseVaspMaker

    return isinstance(calculation.maker, BaseVaspMaker)
