"""A screening campaign on one machine: from inputs to ranked documents, safe to interrupt and to repeat."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobflow import run_locally

from matris.flows.screening import ScreeningFlowMaker, with_elements
from matris.makers.batch_relax import BatchRelaxMaker
from matris.stores.candidate_store import CandidateStore
from matris.stores.candidates import Candidate, read_candidates
from matris.stores.documents import document_id
from matris.stores.jobstore import DEFAULT_FOLDER, open_job_store
from matris.stores.prototypes import generate_candidates
from matris.stores.references import References, load_references
from matris.stores.report import Report, write_report
from matris.stores.report_plot import reference_points

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from jobflow import JobStore

    from matris.potential import Potential


@dataclass(frozen=True)
class Intake:
    """
    What a campaign is asked to compute.

    Parameters
    ----------
    candidates
        Distinct candidates, in the order they were read.
    n_read
        How many were read, identical ones included.
    """

    candidates: list[Candidate]
    n_read: int

    @classmethod
    def of(cls, candidates: Iterable[Candidate]) -> Intake:
        """Drop identical candidates; the first of each stays."""
        distinct: dict[str, Candidate] = {}
        n_read = 0
        for candidate in candidates:
            n_read += 1
            distinct.setdefault(candidate.candidate_id, candidate)
        return cls(list(distinct.values()), n_read)

    @classmethod
    def gather(cls, sources: Sequence[str | Path] = (), chemsys: str | None = None, **generate: Any) -> Intake:
        """
        Read files and generate candidates.

        Parameters
        ----------
        sources
            Files and folders for `matris.stores.candidates.read_candidates`.
        chemsys
            Chemical system to fill from prototypes, such as ``"Li-Fe-O"``.
        **generate
            Keywords of `matris.stores.prototypes.generate_candidates`.

        Raises
        ------
        MatrisError
            If a source does not exist, or an element of the chemical system.
        """
        read = read_candidates(sources) if sources else ()
        made = generate_candidates(chemsys, **generate) if chemsys else ()
        return cls.of(candidate for origin in (read, made) for candidate in origin)


@dataclass
class Campaign:
    """
    Candidates on their way through one checkpoint into one store.

    Whatever the store holds for the same checkpoint and settings is not computed again, and what an interrupted run
    had finished is taken from its journal.

    Parameters
    ----------
    intake
        What to compute.
    location
        Store, as for `matris.stores.jobstore.open_job_store`.
    maker
        Job that computes a chunk. Without a journal folder of its own it keeps its journal with the results.
    chunk_size
        Candidates in a job.

    Raises
    ------
    MatrisError
        If the checkpoint cannot be loaded or the store cannot be opened.
    """

    intake: Intake
    location: str | Path | None = None
    maker: BatchRelaxMaker = field(default_factory=BatchRelaxMaker)
    chunk_size: int = 500

    def __post_init__(self) -> None:
        """Load the potential and open the store."""
        self.potential: Potential = self.maker.potential()
        self.job_store: JobStore = open_job_store(self.location)
        self.store = CandidateStore.beside(self.job_store)
        self.candidates = self.intake.candidates
        self.references: References | None = None
        if self.maker.journal_dir is None:
            self.maker.journal_dir = str((local_folder(self.location) / "journal").absolute())

    def compete_with(self, references: str | Path | None) -> None:
        """
        Choose the competing phases of the hull.

        Parameters
        ----------
        references
            File of computed entries. None: the candidates, and the elements they contain, which are computed too.

        Raises
        ------
        MatrisError
            If the file cannot be read or its entries are on another energy scale.
        """
        if references is None:
            self.candidates = with_elements(self.intake.candidates, self.potential.elements)
        else:
            self.references = load_references(references, self.potential.card.energy_scale)

    def pending(self) -> list[Candidate]:
        """Candidates without a document, after outputs of earlier jobs were picked up."""
        self.store.build(self.job_store)
        done = self.store.done_ids(*self._origin)
        return [candidate for candidate in self.candidates if candidate.candidate_id not in done]

    def compute(self, candidates: Sequence[Candidate]) -> None:
        """Run the jobs of candidates here and now, and build their documents."""
        if not candidates:
            return
        flow_maker = ScreeningFlowMaker(relax_maker=self.maker, chunk_size=self.chunk_size, add_elements=False)
        run_locally(flow_maker.make(candidates), store=self.job_store, log=False, raise_immediately=True)
        self.store.build(self.job_store)
        self._drop_journal()

    def rank(self) -> None:
        """Place the store's documents of this checkpoint and these settings on their hulls."""
        sha256, digest = self._origin
        self.store.update_hulls(self.references, checkpoint_sha256=sha256, settings_digest=digest)

    def documents(self) -> list[dict[str, Any]]:
        """Documents of the campaign's candidates that are in the store, in the order of the candidates."""
        ids = [document_id(candidate.candidate_id, *self._origin) for candidate in self.candidates]
        return self.store.documents(ids)

    def report(self, directory: str | Path, title: str) -> Path:
        """Write the HTML report; its path."""
        documents = self.documents()
        return write_report(
            Report(
                documents,
                self.store.structure,
                card=self.potential.card.to_dict(),
                title=title,
                n_read=self.intake.n_read,
                reference_points=None if self.references is None else reference_points(self.references.entries),
            ),
            directory,
        )

    def write_structures(self, directory: str | Path) -> dict[str, Path]:
        """
        Write relaxed structures as CIF files named after their sources.

        Returns
        -------
        dict
            Path by document id.
        """
        directory = Path(directory)
        written: dict[str, Path] = {}
        for document in self.documents():
            structure = self.store.structure(document["document_id"])
            if structure is None:
                continue
            directory.mkdir(parents=True, exist_ok=True)
            stem = Path(document["source"]).name.split(".")[0] or "structure"
            path = directory / f"{stem}.cif"
            if path in written.values():
                path = directory / f"{stem}-{document['candidate_id'][:8]}.cif"
            structure.to(filename=str(path), fmt="cif")
            written[document["document_id"]] = path
        return written

    def _drop_journal(self) -> None:
        """Remove the journal, unless it holds what another campaign was interrupted in."""
        journal = self.maker.journal(self.potential)
        if not journal.exists():
            return
        done = self.store.done_ids(*self._origin)
        with journal.open(encoding="utf-8") as lines:
            next(lines, None)  # the header
            left = any(json.loads(line)["structure_id"] not in done for line in lines)
        if not left:
            journal.unlink(missing_ok=True)

    @property
    def _origin(self) -> tuple[str, str]:
        """Hash of the checkpoint and digest of the settings, which a document belongs to."""
        return self.potential.card.sha256, self.maker.settings().digest()


def local_folder(location: str | Path | None) -> Path:
    """Folder for the files of a campaign beside its store: the store itself, if that is a folder."""
    return Path(DEFAULT_FOLDER) if location is None or "://" in str(location) else Path(location)
