"""What a campaign has found, read from its store: no potential and no torch are needed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from matris.flows.campaign.finder import campaign_record
from matris.flows.campaign.funnel import Funnel
from matris.flows.campaign.mp_references import MP
from matris.stores.builder import incomplete_remark
from matris.stores.candidate_store import CandidateStore
from matris.stores.database.jobstore import local_folder, open_job_store, sibling_store
from matris.stores.documents.documents import document_id, pressure_of
from matris.stores.documents.properties import property_output
from matris.stores.hull.references import References, load_references
from matris.stores.learning_records import LearningRecords

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pymatgen.core import Structure

    from matris.stores.report.discovery import KnownCrystals


class CampaignResults:
    """
    The results of a campaign.

    `matris.flows.campaign.campaign.Campaign` computes them.

    Parameters
    ----------
    location
        Store, as for `matris.stores.database.jobstore.open_job_store`.
    name
        Name of the campaign.
    title
        Title of the campaign.
    card
        Card of the checkpoint, as a JSON object.
    settings_digest
        Digest of the settings.
    pressure
        External pressure of the relaxations, GPa.
    funnel
        Stages of the campaign.
    references
        File of computed entries that define the hull, ``"mp"``, or None.

    Examples
    --------
    >>> from pymatgen.core import Lattice, Structure
    >>> from matris.flows import Campaign, Funnel, run
    >>> from matris.makers import BatchRelaxMaker
    >>> from matris.stores.documents.candidate import Candidate
    >>> iron = Candidate.from_structure(Structure(Lattice.cubic(2.87), ["Fe"], [[0, 0, 0]]), "iron.cif")
    >>> maker = BatchRelaxMaker(device="cpu", max_steps=1)
    >>> run(Campaign("results", maker, Funnel(hull=False), title="Iron"), [iron], devices=())
    >>> results = CampaignResults.find("results")
    >>> results.title, [document["formula_pretty"] for document in results.documents()]
    ('Iron', ['Fe'])
    """

    def __init__(
        self,
        location: str | Path | None,
        *,
        name: str,
        title: str,
        card: Mapping[str, Any],
        settings_digest: str,
        pressure: float,
        funnel: Funnel,
        references: str | Path | None,
    ) -> None:
        self.location = location
        self.name = name
        self.title = title
        self.card_content = dict(card)
        self.funnel = funnel
        self.origin = (str(card["sha256"]), settings_digest)
        self.job_store = open_job_store(location)
        self.store = CandidateStore.beside(self.job_store)
        self.references: References | None = None
        self._references_file = None if references in {None, MP} else str(Path(str(references)).absolute())
        self._mp_file = local_folder(location).absolute() / f"references-mp-{name}.json.gz"
        self._from_mp = references == MP or self._references_file == str(self._mp_file)
        if self._from_mp and self._mp_file.is_file():
            self._references_file = str(self._mp_file)
        if self._references_file is not None:
            self.references = load_references(self._references_file, card["energy_scale"], pressure=pressure)
        self._records = sibling_store(self.job_store, "campaigns", "campaign_id")
        self._members = sibling_store(self.job_store, "campaign_members", "page_id")

    @classmethod
    def find(cls, location: str | Path | None = None, name: str | None = None) -> Self:
        """
        Find the results of a campaign.

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
            If there is no such campaign.
        """
        record = campaign_record(open_job_store(location), name, location)
        return cls(
            location,
            name=record["campaign_id"],
            title=record["title"],
            card=record["card"],
            settings_digest=record["settings"]["digest"],
            pressure=pressure_of(record["settings"]),
            funnel=Funnel.from_dict(record["funnel"]),
            references=record["references"],
        )

    def __repr__(self) -> str:
        content = f"{self.title}; {self.card_content['key']}; {self.store.docs.name}"
        return f"{type(self).__name__}({self.name!r}: {content})"

    def record(self) -> dict[str, Any]:
        """Read the record of the campaign from the store; it is empty before candidates were read."""
        record = self._records.query_one({"campaign_id": self.name}) or {}
        return {key: value for key, value in record.items() if key != "_id"}

    def document_ids(self) -> Iterator[list[str]]:
        """Yield the ids of the documents of all members, page by page, in the order in which they were read."""
        for page in self._pages():
            yield list(page)

    def documents(self, properties: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
        """
        Yield the documents of the campaign's candidates, in the order in which the candidates were read.

        A document has the source that its candidate has in this campaign. In the store it has the source of the
        campaign that computed it: a crystal from a file may be the elemental reference of another campaign.

        Parameters
        ----------
        properties
            Fields to read. Default: all fields.
        """
        for page in self._pages():
            for document in self.store.documents(list(page), properties):
                source = page[document["document_id"]]
                if source and document.get("source", source) != source:
                    document["source"] = source
                    document.update({"provenance": {}} if "provenance" in document else {})
                yield document

    def _pages(self) -> Iterator[dict[str, str | None]]:
        """Yield the sources of the members by document id, page by page; None if a page has none."""
        for page in self._members.query({"campaign_id": self.name}, sort={"page_id": 1}):
            identities = [document_id(candidate_id, *self.origin) for candidate_id in page["candidate_ids"]]
            yield dict(zip(identities, page.get("sources") or [None] * len(identities), strict=True))

    def report(self, directory: str | Path, known: KnownCrystals | Sequence[Structure] | None = None) -> Path:
        """
        Write the HTML report.

        Parameters
        ----------
        directory
            Folder for the report; it is created if it does not exist.
        known
            Known crystals. The report counts the candidates that are stable, unique and novel relative to them.
            Default: no such counts.

        Returns
        -------
        Path
            Path of the page.
        """
        from matris.flows.campaign.competing import REMARK_FIELDS, hull_remarks
        from matris.stores.report import FIELDS, Report, reference_points, write_report
        from matris.stores.report.discovery import COMPARED, discovery  # loads plotting libraries

        remarks = hull_remarks(self.documents(REMARK_FIELDS), self.references) if self.funnel.hull else []
        if incomplete := incomplete_remark(self.store.incomplete()):
            remarks.append(incomplete)
        return write_report(
            Report(
                self.documents(FIELDS),
                self.store.structure,
                card=self.card_content,
                title=self.title,
                intake=self.record().get("intake"),
                window=self.funnel.window if self.funnel.hull else None,
                reference_points=None if self.references is None else reference_points(self.references.entries),
                phonons=self._phonons,
                remarks=remarks,
                loop=LearningRecords(self.job_store).of_campaign(self.name),
                discovery=None if known is None else discovery(self.documents(COMPARED), self.store.structure, known),
            ),
            directory,
        )

    def _phonons(self, document: Mapping[str, Any]) -> dict[str, Any] | None:
        """Read the phonon band structure and density of states of a candidate."""
        return property_output(self.job_store, "phonon", document, ["phonon_bandstructure", "phonon_dos"])
