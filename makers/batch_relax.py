"""Relaxations and single-point calculations of many candidates in one job."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobflow import job

from matris.makers.batch import BatchMaker, arithmetic_of, as_candidate, provenance
from matris.makers.chunk_records import record_of, refusal
from matris.makers.current_job import SEES_STORE, check_store, own_folder
from matris.makers.failing_alike import FailedAlikeError, failed_alike, stop_message
from matris.relaxation.journal import JournalInUseError
from matris.relaxation.relax import RelaxSettings, journal_file, relax
from matris.stores.documents.documents import ChunkArrays, ChunkDocument, ChunkRecord, RelaxTag, State

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence

    from pymatgen.core import Structure

    from matris.model.potential import Potential
    from matris.relaxation.records import OptimizerName
    from matris.relaxation.relax import RelaxRecord
    from matris.stores.documents.candidate import Candidate

logger = logging.getLogger(__name__)


@dataclass
class BatchRelaxMaker(BatchMaker):
    """
    Relax a chunk of candidates on one device, with one record for each.

    A candidate that cannot be computed does not affect the others. An unreadable or impossible candidate gets a record
    with state ``rejected`` and the reason; a candidate whose relaxation breaks gets state ``failed``. Finished
    candidates are appended to a journal, so that a job that was killed resumes when it starts again.

    Each finished candidate is logged at level INFO, with its record as attribute ``record`` of the log entry, e.g. for
    a progress bar.

    Parameters
    ----------
    name
        Name of the job.
    checkpoint
        Registry key or path of a checkpoint; by default the embedded one.
    device, dtype
        Device and precision of the potential; by default those that suit the machine and the checkpoint.
    dispersion
        ``"d3"`` adds D3(BJ) dispersion; by default none.
    relax_cell
        Whether the cell relaxes with the atoms.
    fmax
        Bound on the forces on atoms and on a cell that relaxes, eV/Å.
    max_steps
        Maximum number of optimisation steps of a candidate.
    optimizer
        ``"lbfgs"`` or ``"fire"``; see `matris.relax`.
    pressure
        External pressure on cells that relax, GPa. Hulls then compare enthalpies.
    relax_kwargs
        Further keywords of `matris.relax`, such as ``fix_symmetry`` and ``cell_mask``.
    first
        Maker of a preceding relaxation, e.g. with a cheaper checkpoint. Candidates that it cannot compute start from
        their input structure.
    journal_dir
        Folder of the journal; by default the folder in which the job runs.
    tags
        Labels kept in the provenance of every candidate.
    keep_going
        Whether to compute all candidates even if the first ones all fail for one reason. By default the job then stops
        with an error, see `matris.makers.failing_alike`.

    Raises
    ------
    ValueError
        If `relax_kwargs` names a field of the Maker.

    Examples
    --------
    >>> from pymatgen.core import Lattice, Structure
    >>> rock_salt = Structure.from_spacegroup("Fm-3m", Lattice.cubic(4.21), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    >>> job = BatchRelaxMaker(fmax=0.02).make([rock_salt])
    >>> job.name
    'batch relax'
    """

    name: str = "batch relax"
    relax_cell: bool = True
    fmax: float = 0.05
    max_steps: int = 500
    optimizer: OptimizerName = "lbfgs"
    pressure: float = 0.0
    relax_kwargs: dict[str, Any] = field(default_factory=dict)
    first: BatchRelaxMaker | None = None
    journal_dir: str | None = None
    tags: list[str] | None = None
    keep_going: bool = False

    def __post_init__(self) -> None:
        """Refuse a setting under two names."""
        if twice := sorted(
            {"relax_cell", "fmax", "max_steps", "steps", "optimizer", "pressure"} & set(self.relax_kwargs)
        ):
            names = ", ".join(f"{'max_steps' if name == 'steps' else name}=…" for name in twice)
            raise ValueError(f"{', '.join(twice)} in relax_kwargs: write {type(self).__name__}({names})")

    @job(data=["structures"], output_schema=ChunkDocument, config=SEES_STORE)
    def make(
        self,
        candidates: Sequence[Candidate | Structure | dict[str, Any]],
        prev_dir: str | Path | None = None,  # noqa: ARG002 (part of every Maker's signature)
    ) -> ChunkDocument:
        """
        Relax candidates.

        Parameters
        ----------
        candidates
            Candidates (or their dictionaries), or bare structures.
        prev_dir
            Part of every Maker's signature; without effect.

        Returns
        -------
        ChunkDocument
            One record per candidate, in the order given; per-atom arrays go to the additional store ``data``.

        Raises
        ------
        FailedAlikeError
            If the first candidates all fail for one reason. Its results are not kept in the journal.
        """
        check_store()
        started = datetime.now(UTC)
        chunk = [as_candidate(candidate) for candidate in candidates]
        potential = self.potential()
        scale = potential.card.energy_scale
        results: dict[int, tuple[ChunkRecord, ChunkArrays]] = {}
        accepted: list[int] = []
        for index, candidate in enumerate(chunk):
            if (refused := refusal(candidate, potential.elements)) is None:
                accepted.append(index)
            else:
                results[index] = self._result(candidate, *refused, scale)
                _report(results[index][0])
        starts = [structure for index in accepted if (structure := chunk[index].structure) is not None]
        computed = self._computed_here(starts, potential)
        for result, first in computed:
            index = accepted[result.index]
            small, large = self._result(chunk[index], result.state, result.error, scale, result)
            small.first_steps = first.n_steps if first else None
            results[index] = small, large
            _report(small)
            if small.state == "failed" and not self.keep_going:
                self._stop_if_alike(map(results.get, range(len(chunk))), computed, potential)
        return ChunkDocument(
            records=[results[index][0] for index in range(len(chunk))],
            structures=[results[index][1] for index in range(len(chunk))],
            settings=self.tag(),
            started=started.isoformat(),
            **provenance(potential),
        )

    def _stop_if_alike(
        self,
        results: Iterable[tuple[ChunkRecord, ChunkArrays] | None],
        computed: Generator[object],
        potential: Potential,
    ) -> None:
        """Stop if the first results all are failures for one reason; another job then computes them again."""
        error = failed_alike(result and (result[0].state, result[0].error) for result in results)
        if error is None:
            return
        computed.close()  # it holds the journal
        self._drop_journals(potential)
        raise FailedAlikeError(
            stop_message(error, "job", "with `keep_going=True` of the Maker (--keep-going of matris screen)")
        )

    def _drop_journals(self, potential: Potential) -> None:
        """Remove the journal, and that of the preceding relaxation."""
        self.journal(potential).unlink(missing_ok=True)
        if self.first is not None:
            first = replace(self.first, journal_dir=self.journal_dir)
            first._drop_journals(first.potential())  # noqa: SLF001 - of the same kind

    def outcome(self, record: RelaxRecord, first: RelaxRecord | None) -> RelaxRecord:  # noqa: ARG002
        """Return the final record of a candidate, from its record and that of the preceding relaxation (or None)."""
        return record

    def settings(self) -> RelaxSettings:
        """Return the settings on which a result depends, besides checkpoint and candidate."""
        decisive = {key: value for key, value in self.relax_kwargs.items() if key in RelaxSettings.__dataclass_fields__}
        return RelaxSettings(
            **decisive,
            fmax=self.fmax,
            max_steps=self.max_steps,
            relax_cell=self.relax_cell,
            optimizer=self.optimizer,
            pressure=self.pressure,
        )

    def tag(self) -> RelaxTag:
        """Return the settings as documents name them, with those of the preceding relaxation."""
        settings = self.settings()
        digest, first = settings.digest(), None
        if self.first is not None:
            card, tag = self.first.card(), self.first.tag()
            first = {"checkpoint": card.key, "sha256": card.sha256, **self.first.settings().to_dict()}
            first |= {"first": tag.first} if tag.first else {}
            digest = hashlib.sha256(json.dumps([digest, first], sort_keys=True).encode()).hexdigest()[: len(digest)]
        return RelaxTag(**settings.to_dict(), digest=digest, first=first)

    def final_pressure(self) -> float:
        """Pressure at which the final structures are relaxed, GPa."""
        return self.pressure

    def journal(self, potential: Potential) -> Path:
        """File of the journal of a potential with these settings."""
        folder = Path(self.journal_dir or ".")
        return journal_file(folder, potential.card.sha256, self.settings(), arithmetic_of(potential))

    def _relax(self, structures: Sequence[Structure], potential: Potential) -> Iterator[RelaxRecord]:
        """Relax with these settings and this journal."""
        return relax(
            structures,
            potential,
            fmax=self.fmax,
            max_steps=self.max_steps,
            relax_cell=self.relax_cell,
            optimizer=self.optimizer,
            pressure=self.pressure,
            journal=self.journal(potential),
            **self.relax_kwargs,
        )

    def _computed_here(
        self, structures: Sequence[Structure], potential: Potential
    ) -> Generator[tuple[RelaxRecord, RelaxRecord | None]]:
        """Yield as `_computed` does, with a journal of the job's own if another job in the current folder holds it."""
        try:
            yield from self._computed(structures, potential)
        except JournalInUseError:
            if self.journal_dir is not None:
                raise
            yield from replace(self, journal_dir=str(own_folder()))._computed(structures, potential)  # noqa: SLF001 - of the same kind

    def _computed(
        self, structures: Sequence[Structure], potential: Potential
    ) -> Iterator[tuple[RelaxRecord, RelaxRecord | None]]:
        """Yield the final record and the record of the preceding relaxation (or None) of each structure."""
        before: dict[int, RelaxRecord] = {}
        if self.first is not None:
            first = replace(self.first, journal_dir=self.journal_dir)
            before = {record.index: record for record, _ in first._computed(structures, first.potential())}  # noqa: SLF001 - of the same kind
        starts = [(i in before and before[i].structure) or start for i, start in enumerate(structures)]
        for record in self._relax(starts, potential):
            preceding = before.get(record.index)
            yield self.outcome(record, preceding), preceding

    def _result(
        self, candidate: Candidate, state: State, error: str | None, scale: str, record: RelaxRecord | None = None
    ) -> tuple[ChunkRecord, ChunkArrays]:
        """Record and arrays of one candidate."""
        return record_of(candidate, state, error, scale, record, pressure=self.final_pressure(), tags=self.tags)


@dataclass
class BatchStaticMaker(BatchRelaxMaker):
    """
    Compute energies, forces and stresses of a chunk of candidates as they are.

    The documents are those of `BatchRelaxMaker`. A candidate that could be computed has the state ``converged``,
    whatever its forces. With a preceding relaxation (`first`) the state is that of the relaxation: this is how to get
    energies of relaxed crystals in double precision, or from a better checkpoint.

    Parameters
    ----------
    name
        Name of the job.
    checkpoint
        Registry key or path of a checkpoint; by default the embedded one.
    device, dtype
        Device and precision of the potential; by default those that suit the machine and the checkpoint.
    dispersion
        ``"d3"`` adds D3(BJ) dispersion; by default none.
    first
        Maker of a relaxation, whose final structures are evaluated.
    journal_dir
        Folder of the journal; by default the folder in which the job runs.
    tags
        Labels kept in the provenance of every candidate.
    keep_going
        As for `BatchRelaxMaker`.

    Examples
    --------
    >>> from pymatgen.core import Lattice, Structure
    >>> rock_salt = Structure.from_spacegroup("Fm-3m", Lattice.cubic(4.21), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    >>> job = BatchStaticMaker(dtype="float64", first=BatchRelaxMaker()).make([rock_salt])
    >>> job.name
    'batch static'
    """

    name: str = "batch static"
    relax_cell: bool = field(default=False, init=False)
    fmax: float = field(default=0.05, init=False)
    max_steps: int = field(default=0, init=False)
    optimizer: OptimizerName = field(default="lbfgs", init=False)
    pressure: float = field(default=0.0, init=False)
    relax_kwargs: dict[str, Any] = field(default_factory=dict, init=False)

    def final_pressure(self) -> float:
        """Pressure of the preceding relaxation, GPa."""
        return 0.0 if self.first is None else self.first.final_pressure()

    def outcome(self, record: RelaxRecord, first: RelaxRecord | None) -> RelaxRecord:
        """Return the record of an evaluation, with the state of the preceding relaxation."""
        if first is not None and first.structure is None:
            return first
        if record.state == "failed":
            return record
        return replace(record, state="converged" if first is None else first.state)


def _report(record: ChunkRecord) -> None:
    """Log a finished candidate."""
    logger.info("%s %s: %s", record.state, record.formula, record.source, extra={"record": record})
