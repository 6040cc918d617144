"""A campaign: candidates that are computed with one checkpoint, and their results in one store."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from monty.json import jsanitize

from matris.files.structure_files import file_name, structure_text
from matris.flows.campaign.finder import campaign_record
from matris.flows.campaign.funnel import Funnel
from matris.flows.campaign.mp_references import MP, fetch
from matris.flows.campaign.results import CampaignResults
from matris.flows.campaign.sharing import ALONE, Sharing
from matris.flows.campaign.stages import stage_maker
from matris.flows.queue.queue import WorkQueue
from matris.makers.batch_relax import BatchRelaxMaker
from matris.makers.decoding import decode_maker
from matris.stores.database.jobstore import local_folder, open_job_store, sibling_store
from matris.stores.documents.documents import CheckpointTag, utc_now
from matris.stores.documents.entries import structure_entry
from matris.stores.hull.references import check_mp
from matris.stores.query.tables import open_target, write_entries

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from matris.makers.batch import BatchMaker

PAGE = 1000
"""Number of candidates in a page of a campaign's list of members."""


class Campaign(CampaignResults):
    """
    Candidates that are computed with one checkpoint, and their results in one store.

    The title, the checkpoint and the settings identify a campaign, on any machine that can access the store. Results
    that the store holds for the checkpoint and the settings are not computed again, even if they belong to another
    campaign.

    Parameters
    ----------
    location
        Store, as for `matris.stores.database.jobstore.open_job_store`.
    maker
        Maker of the jobs that relax a chunk. Default: the embedded checkpoint.
    funnel
        Stages of the campaign.
    title
        Title of the campaign, in the report and in `matris status`.
    chunk_size
        Maximum number of candidates in a job.
    references
        File of computed entries that define the hull, or ``"mp"``: the phases of the candidates' chemical systems are
        fetched from the Materials Project when the candidates are read, and kept in the store's folder. Default: the
        competing phases are the candidates and their elements, which are computed too.
    known_phases
        File of computed entries with structures. The entries in the candidates' chemical systems are computed too, and
        compete on the hull.

    Attributes
    ----------
    name
        Name of the campaign, 12 hexadecimal digits.
    store
        Store of the candidate documents, a `matris.stores.candidate_store.CandidateStore`.
    queue
        Queue of the chunks, a `matris.flows.queue.queue.WorkQueue`.
    sharing
        Processes that share the chunks, a `matris.flows.campaign.sharing.Sharing`; the runner sets it.

    Raises
    ------
    MatrisError
        If the checkpoint or the references cannot be read, or the store cannot be opened.

    Examples
    --------
    Run a campaign, and open it again:

    >>> from pymatgen.core import Lattice, Structure
    >>> from matris.flows import Campaign, Funnel, run
    >>> from matris.makers import BatchRelaxMaker
    >>> from matris.stores.documents.candidate import Candidate
    >>> mgo = Structure.from_spacegroup("Fm-3m", Lattice.cubic(4.2), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    >>> maker = BatchRelaxMaker(device="cpu", max_steps=1)
    >>> campaign = Campaign("results", maker, Funnel(hull=False), title="Magnesia")
    >>> run(campaign, [Candidate.from_structure(mgo, "mgo.cif")], devices=())
    >>> [document["formula_pretty"] for document in Campaign.open("results").documents()]
    ['MgO']
    """

    def __init__(
        self,
        location: str | Path | None = None,
        maker: BatchRelaxMaker | None = None,
        funnel: Funnel | None = None,
        *,
        title: str = "Screening",
        chunk_size: int = 500,
        references: str | Path | None = None,
        known_phases: str | Path | None = None,
    ) -> None:
        self.maker = maker or BatchRelaxMaker()
        self.chunk_size = chunk_size
        self.sharing: Sharing = ALONE
        self.card = card = self.maker.card()
        self.known_phases = None if known_phases is None else str(Path(known_phases).absolute())
        self.checkpoint = CheckpointTag(
            key=card.key,
            sha256=card.sha256,
            energy_scale=card.energy_scale,
            is_demonstrator=card.is_demonstrator,
        )
        self.settings = self.maker.tag()
        identity = f"{title}\n{card.sha256}\n{self.settings.digest}"
        super().__init__(
            location,
            name=hashlib.sha256(identity.encode()).hexdigest()[:12],
            title=title,
            card=card.to_dict(),
            settings_digest=self.settings.digest,
            pressure=self.maker.final_pressure(),
            funnel=funnel or Funnel(),
            references=references,
        )
        self.queue = WorkQueue(sibling_store(self.job_store, "work_queue", "work_id"))
        if self._from_mp and self.references is None:
            check_mp(card.energy_scale, self.maker.final_pressure())

    @classmethod
    def open(cls, location: str | Path | None = None, name: str | None = None) -> Self:
        """
        Open an existing campaign.

        Parameters
        ----------
        location
            Store.
        name
            Name of the campaign, or its first characters, as for `matris.flows.campaign.finder.campaign_record`.
            Default: the campaign that ran last.

        Raises
        ------
        StoreError
            If there is no such campaign, or its Maker is none of this package.
        """
        record = campaign_record(open_job_store(location), name, location)
        maker = decode_maker(record["maker"])
        return cls(
            location,
            maker,
            Funnel.from_dict(record["funnel"]),
            title=record["title"],
            chunk_size=record["chunk_size"],
            references=record["references"],
            known_phases=record["known_phases"],
        )

    def keep(self, **fields: Any) -> None:
        """Write the settings of the campaign and further fields to its record."""
        settings = {
            "campaign_id": self.name,
            "title": self.title,
            "maker": jsanitize(self.maker.as_dict(), strict=True),
            "funnel": self.funnel.to_dict(),
            "chunk_size": self.chunk_size,
            "references": MP if self._from_mp else self._references_file,
            "known_phases": self.known_phases,
            "card": self.card_content,
            "checkpoint": self.checkpoint.model_dump(),
            "settings": self.settings.model_dump(),
            "last_updated": utc_now(),
        }
        self._records.update([{"created": utc_now(), **self.record(), **settings, **fields}], key="campaign_id")

    def fetch_references(self, systems: Collection[str]) -> None:
        """
        Fetch references from the Materials Project, if they are to come from there and do not cover some systems.

        Raises
        ------
        MatrisError
            If the Materials Project cannot be reached, or has no phases of these systems.
        """
        known = set(self.record().get("reference_systems") or [])
        if not self._from_mp or not systems or (self.references is not None and known >= set(systems)):
            return
        wanted = known | set(systems)
        self.references = fetch(wanted, self.card.energy_scale)
        self._mp_file.parent.mkdir(parents=True, exist_ok=True)
        self.references.write(self._mp_file)
        self._references_file = str(self._mp_file)
        self.keep(reference_systems=sorted(wanted))

    def task(self) -> dict[str, Any]:
        """Return what another process needs to open the campaign."""
        return {"location": None if self.location is None else str(self.location), "campaign": self.name}

    def stage_maker(self, stage: str, work_id: str, device: str | None) -> BatchMaker:
        """
        Make the Maker of a chunk's job on this machine, with a journal in the chunk's own folder.

        The job does not stop if its first candidates fail alike: the runner watches all chunks together.
        """
        return stage_maker(stage, replace(self.maker, keep_going=True), self.journal(work_id), device)

    def journal(self, work_id: str) -> Path:
        """Return the folder for the journal of a chunk's job, which keeps finished results."""
        return (local_folder(self.location) / "journal" / work_id).absolute()

    def drop_journal(self, work_id: str) -> None:
        """Remove the journal of a chunk whose output is in the store."""
        shutil.rmtree(self.journal(work_id), ignore_errors=True)

    def write_members(self, number: int, sources: Mapping[str, str]) -> None:
        """Write a page of the list of the campaign's candidates: their sources in this campaign, by candidate id."""
        page = {
            "page_id": f"{self.name}-{number:06d}",
            "campaign_id": self.name,
            "candidate_ids": list(sources),
            "sources": list(sources.values()),
        }
        self._members.update([page | {"last_updated": utc_now()}], key="page_id")

    def cut_members(self, n_pages: int) -> None:
        """Remove pages beyond `n_pages`, which an earlier and longer list left behind."""
        self._members.remove_docs({"campaign_id": self.name, "page_id": {"$gte": f"{self.name}-{n_pages:06d}"}})

    def rank(self) -> None:
        """Update the hulls of all documents of this checkpoint and these settings."""
        sha256, digest = self.origin
        self.store.update_hulls(self.references, checkpoint_sha256=sha256, settings_digest=digest)

    def write_structures(self, directory: str | Path, form: str = "cif") -> dict[str, Path]:
        """
        Write relaxed structures to files named after their sources.

        Parameters
        ----------
        directory
            Folder for the files; it is created if it does not exist.
        form
            ``"cif"``, ``"symmetrized-cif"`` or ``"poscar"``, see
            `matris.files.structure_files.structure_text`; or ``"entries"``: pymatgen's ComputedStructureEntry of
            all structures, in the file ``entries.json``.

        Returns
        -------
        dict
            Path of each file, by document id. Names end in ``-unconverged`` if the relaxation has not converged.
        """
        directory = Path(directory)
        if form == "entries":
            return self._write_entries(directory / "entries.json")
        written: dict[str, Path] = {}
        taken: set[Path] = set()
        for document in self.documents(["source", "candidate_id", "state"]):
            structure = self.store.structure(document["document_id"])
            if structure is None:
                continue
            directory.mkdir(parents=True, exist_ok=True)
            stem = Path(document["source"]).name.split(".")[0] or "structure"
            path = directory / file_name(stem, document["state"], form)
            if path in taken:
                path = directory / file_name(f"{stem}-{document['candidate_id'][:8]}", document["state"], form)
            path.write_text(structure_text(structure, form), encoding="utf-8")
            taken.add(path)
            written[document["document_id"]] = path
        return written

    def _write_entries(self, path: Path) -> dict[str, Path]:
        """Write pymatgen's entries of all structures with a corrected energy."""
        found = ((document, self.store.structure(document["document_id"])) for document in self.documents())
        pairs = [
            (d, structure) for d, structure in found if structure is not None and d.get("energy_per_atom") is not None
        ]
        path.parent.mkdir(parents=True, exist_ok=True)
        with open_target(path) as stream:
            write_entries((structure_entry(d, structure) for d, structure in pairs), stream)
        return {d["document_id"]: path for d, _ in pairs}
