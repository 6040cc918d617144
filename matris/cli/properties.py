"""Commands that compute properties: elastic, eos, phonon, qha, kappa, neb, defects, surfaces, md, diffusion."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape

from matris.cli.campaign_run import named_devices, warn_of_demonstrator
from matris.cli.console import CampaignProgress, Column, numbers, print_table, stderr, stdout, write_columns, write_json
from matris.cli.options import (
    Checkpoint,
    Devices,
    Dispersion,
    Files,
    Format,
    MinLength,
    Optimizer,
    Page,
    Pressure,
    Project,
    Resource,
    Store,
    Submit,
    Worker,
    clear_errors,
    exit_by_states,
    shortened,
)
from matris.cli.submit import submission_of, submit_properties

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matris.cli.console import Document
    from matris.flows.cluster.submission import Submission
    from matris.makers.batch import BatchMaker
    from matris.stores.report.property_kinds import Parts, PropertyKind


Displacement = Annotated[
    float,
    typer.Option(metavar="Å", min=0.001, max=0.3, help="Length of the displacements (Å); a third of it checks them."),
]


def elastic(
    files: Files,
    optimizer: Optimizer = "lbfgs",
    pressure: Pressure = 0.0,
    checkpoint: Checkpoint = None,
    dispersion: Dispersion = None,
    device: Devices = None,
    store: Store = None,
    output: Format = "table",
    report: Page = None,
    submit: Submit = False,
    project: Project = None,
    worker: Worker = None,
    resource: Resource = None,
) -> None:
    """
    Compute elastic tensors, elastic moduli (GPa) and mechanical stability.

    `matris elastic POSCAR other.cif`
    """
    with clear_errors():
        from matris.makers import BatchElasticMaker

        maker = BatchElasticMaker(checkpoint=checkpoint, dispersion=dispersion, optimizer=optimizer, pressure=pressure)
        submission = submission_of(project, worker, resource, device) if submit else None
        _properties("elastic", files, maker, device, store, output, report, submission)


def eos(
    files: Files,
    optimizer: Optimizer = "lbfgs",
    pressure: Pressure = 0.0,
    checkpoint: Checkpoint = None,
    dispersion: Dispersion = None,
    device: Devices = None,
    store: Store = None,
    output: Format = "table",
    report: Page = None,
    submit: Submit = False,
    project: Project = None,
    worker: Worker = None,
    resource: Resource = None,
) -> None:
    """
    Fit equations of state: equilibrium volume (Å³) and bulk modulus (GPa).

    Tables show the third-order Birch–Murnaghan fit; --format json has the other equations too.

    `matris eos POSCAR other.cif --format json > eos.json`
    """
    with clear_errors():
        from matris.makers import BatchEosMaker

        maker = BatchEosMaker(checkpoint=checkpoint, dispersion=dispersion, optimizer=optimizer, pressure=pressure)
        submission = submission_of(project, worker, resource, device) if submit else None
        _properties("eos", files, maker, device, store, output, report, submission)


def phonon(
    files: Files,
    min_length: MinLength = 12.0,
    displacement: Displacement = 0.03,
    follow: Annotated[
        bool,
        typer.Option("--follow", help="Distort unstable crystals along their most unstable mode, and relax them."),
    ] = False,
    folder: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="Folder for phonopy.yaml (with force constants) and band.yaml of each material, and with --follow the "
            "CIF file of the crystal that it leads to.",
        ),
    ] = Path("phonons"),
    optimizer: Optimizer = "lbfgs",
    pressure: Pressure = 0.0,
    checkpoint: Checkpoint = None,
    dispersion: Dispersion = None,
    device: Devices = None,
    store: Store = None,
    output: Format = "table",
    report: Page = None,
    submit: Submit = False,
    project: Project = None,
    worker: Worker = None,
    resource: Resource = None,
) -> None:
    """
    Compute harmonic phonons (THz), dynamical stability, and thermal properties at 300 K per mole of atoms.

    `matris phonon POSCAR --min-length 15`
    """
    with clear_errors():
        from matris.makers import BatchPhononMaker

        maker = BatchPhononMaker(
            checkpoint=checkpoint,
            dispersion=dispersion,
            min_length=min_length,
            displacement=displacement,
            follow=follow,
            optimizer=optimizer,
            pressure=pressure,
        )
        submission = submission_of(project, worker, resource, device) if submit else None
        _properties("phonon", files, maker, device, store, output, report, submission, folder)


def qha(
    files: Files,
    min_length: MinLength = 12.0,
    displacement: Displacement = 0.03,
    t_max: Annotated[float, typer.Option(metavar="K", min=20.0, help="Maximum temperature (K).")] = 1000.0,
    optimizer: Optimizer = "lbfgs",
    pressure: Pressure = 0.0,
    checkpoint: Checkpoint = None,
    dispersion: Dispersion = None,
    device: Devices = None,
    store: Store = None,
    output: Format = "table",
    report: Page = None,
    submit: Submit = False,
    project: Project = None,
    worker: Worker = None,
    resource: Resource = None,
) -> None:
    """
    Compute thermal expansion, bulk modulus, heat capacity and Grüneisen parameters (quasi-harmonic).

    `matris qha POSCAR --t-max 600`
    """
    with clear_errors():
        from matris.makers import BatchQhaMaker

        maker = BatchQhaMaker(
            checkpoint=checkpoint,
            dispersion=dispersion,
            optimizer=optimizer,
            pressure=pressure,
            min_length=min_length,
            displacement=displacement,
            t_max=t_max,
        )
        submission = submission_of(project, worker, resource, device) if submit else None
        _properties("qha", files, maker, device, store, output, report, submission)


def kappa(
    files: Files,
    min_length: MinLength = 12.0,
    min_length_fc3: Annotated[
        float,
        typer.Option(
            metavar="Å", min=1.0, help="The same for third-order force constants, which need many supercells."
        ),
    ] = 8.0,
    displacement: Displacement = 0.03,
    pair_cutoff: Annotated[
        float | None,
        typer.Option(
            metavar="Å",
            min=0.1,
            help="Longest distance of two atoms that are displaced together (Å).",
            show_default="all pairs in the supercell",
        ),
    ] = None,
    mesh: Annotated[
        float,
        typer.Option(metavar="Å", min=1.0, help="Mesh of wave vectors: this length over the lattice vectors (Å)."),
    ] = 60.0,
    isotopes: Annotated[
        bool,
        typer.Option("--isotopes/--pure", help="Scatter phonons by isotopes in their natural abundance, or by none."),
    ] = True,
    boundary_mfp: Annotated[
        float, typer.Option(metavar="µm", min=1e-4, help="Distance between boundaries, as the size of grains (µm).")
    ] = 1e6,
    t_max: Annotated[float, typer.Option(metavar="K", min=150.0, help="Maximum temperature (K).")] = 1000.0,
    optimizer: Optimizer = "lbfgs",
    pressure: Pressure = 0.0,
    checkpoint: Checkpoint = None,
    device: Devices = None,
    store: Store = None,
    output: Format = "table",
    report: Page = None,
    submit: Submit = False,
    project: Project = None,
    worker: Worker = None,
    resource: Resource = None,
) -> None:
    """
    Compute lattice thermal conductivities (W/m/K) by phono3py, in the relaxation time approximation.

    They include tunnelling between bands (Wigner transport equation). Crystals keep their space group as they relax.

    `matris kappa POSCAR --min-length-fc3 10`
    """
    with clear_errors():
        from matris.makers import BatchKappaMaker
        from matris.properties.conductivity import require_phono3py

        require_phono3py()
        maker = BatchKappaMaker(
            checkpoint=checkpoint,
            optimizer=optimizer,
            pressure=pressure,
            min_length=min_length,
            min_length_fc3=min_length_fc3,
            displacement=displacement,
            pair_cutoff=pair_cutoff,
            mesh=mesh,
            isotopes=isotopes,
            boundary_mfp=boundary_mfp,
            t_max=t_max,
        )
        submission = submission_of(project, worker, resource, device) if submit else None
        _properties("kappa", files, maker, device, store, output, report, submission)


def neb(
    files: Files,
    vacancy: Annotated[
        str | None,
        typer.Option(metavar="ELEMENT", help="Element that hops to neighboring vacancies in the crystals."),
    ] = None,
    end: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Instead: end of the path that starts at FILES; same atoms, same order."),
    ] = None,
    min_length: Annotated[
        float,
        typer.Option(metavar="Å", min=1.0, help="Minimum length of the vectors of supercells with a vacancy (Å)."),
    ] = 10.0,
    n_images: Annotated[int, typer.Option(metavar="N", min=1, help="Number of images between the ends.")] = 5,
    fmax: Annotated[float, typer.Option(metavar="F", min=1e-6, help="Bound on all forces (eV/Å).")] = 0.05,
    max_steps: Annotated[int, typer.Option(metavar="N", min=1, help="Maximum number of steps of a band.")] = 500,
    optimizer: Optimizer = "lbfgs",
    checkpoint: Checkpoint = None,
    device: Devices = None,
    store: Store = None,
    output: Format = "table",
    report: Page = None,
    submit: Submit = False,
    project: Project = None,
    worker: Worker = None,
    resource: Resource = None,
) -> None:
    """
    Compute migration barriers (eV) by the climbing-image nudged elastic band.

    `matris neb crystal.cif --vacancy Li` or `matris neb start.cif --end end.cif`
    """
    with clear_errors():
        from matris.makers import BatchNebMaker
        from matris.properties.barriers import require_diffusion

        if (vacancy is None) == (end is None):
            raise typer.BadParameter("give either --vacancy ELEMENT or --end FILE")
        if vacancy is not None:
            require_diffusion()
        maker = BatchNebMaker(
            checkpoint=checkpoint,
            optimizer=optimizer,
            vacancy=vacancy,
            end=None if end is None else _coordinates(end),
            min_length=min_length,
            n_images=n_images,
            fmax=fmax,
            max_steps=max_steps,
        )
        submission = submission_of(project, worker, resource, device) if submit else None
        _properties("neb", files, maker, device, store, output, report, submission)


def _coordinates(file: Path) -> list[list[float]]:
    """Read the fractional coordinates of the one structure in a file."""
    from matris.errors import MatrisError
    from matris.flows.sources.files import read_candidates

    found = list(read_candidates([file]))
    if len(found) != 1 or found[0].structure is None:
        problem = found[0].error if len(found) == 1 else f"{len(found)} structures"
        raise MatrisError(f"{file}: expected one structure, found {problem}")
    return [[float(x) for x in row] for row in found[0].structure.frac_coords]


def defects(
    files: Files,
    kinds: Annotated[
        str, typer.Option(metavar="KIND,KIND", help="Kinds of defects.")
    ] = "vacancy,antisite,interstitial",
    references: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            help="Computed entries (pymatgen JSON) whose hull limits the chemical potentials.",
            show_default="phases of the store by the same checkpoint, and the elements",
        ),
    ] = None,
    min_length: Annotated[
        float, typer.Option(metavar="Å", min=1.0, help="Minimum distance of a defect from its periodic images (Å).")
    ] = 10.0,
    fmax: Annotated[float, typer.Option(metavar="F", min=1e-6, help="Bound on all forces (eV/Å).")] = 0.01,
    max_steps: Annotated[int, typer.Option(metavar="N", min=1, help="Maximum number of steps of a supercell.")] = 500,
    optimizer: Optimizer = "lbfgs",
    pressure: Pressure = 0.0,
    checkpoint: Checkpoint = None,
    dispersion: Dispersion = None,
    device: Devices = None,
    store: Store = None,
    output: Format = "table",
    report: Page = None,
    submit: Submit = False,
    project: Project = None,
    worker: Worker = None,
    resource: Resource = None,
) -> None:
    """
    Compute formation energies (eV) of neutral vacancies, antisites and interstitials.

    `matris defects crystal.cif --kinds vacancy --references mp.json.gz`
    """
    with clear_errors():
        from matris.flows.campaign.defect_references import with_references
        from matris.makers import BatchDefectsMaker
        from matris.properties.defects import KINDS, require_defects

        names = [name.strip() for name in kinds.split(",")]
        if unknown := [name for name in names if name not in KINDS]:
            raise typer.BadParameter(f"unknown kinds of defects: {', '.join(unknown)}; choose from {', '.join(KINDS)}")
        require_defects()
        plain = BatchDefectsMaker(
            checkpoint=checkpoint,
            dispersion=dispersion,
            optimizer=optimizer,
            pressure=pressure,
            kinds=names,
            min_length=min_length,
            fmax=fmax,
            max_steps=max_steps,
        )
        maker = with_references(plain, files, store, references)
        submission = submission_of(project, worker, resource, device) if submit else None
        _properties("defects", files, maker, device, store, output, report, submission)


def surfaces(
    files: Files,
    max_index: Annotated[
        int, typer.Option(metavar="N", min=1, max=5, help="Largest Miller index, in the conventional cell.")
    ] = 1,
    min_slab: Annotated[float, typer.Option(metavar="Å", min=1.0, help="Minimum thickness of slabs (Å).")] = 12.0,
    min_vacuum: Annotated[
        float, typer.Option(metavar="Å", min=1.0, help="Minimum thickness of the vacuum between slabs (Å).")
    ] = 12.0,
    fmax: Annotated[float, typer.Option(metavar="F", min=1e-6, help="Bound on all forces (eV/Å).")] = 0.01,
    max_steps: Annotated[int, typer.Option(metavar="N", min=1, help="Maximum number of steps of a slab.")] = 500,
    optimizer: Optimizer = "lbfgs",
    checkpoint: Checkpoint = None,
    dispersion: Dispersion = None,
    device: Devices = None,
    store: Store = None,
    output: Format = "table",
    report: Page = None,
    submit: Submit = False,
    project: Project = None,
    worker: Worker = None,
    resource: Resource = None,
) -> None:
    """
    Compute surface energies (J/m²) and Wulff shapes.

    Slabs are symmetric and stoichiometric; orientations that have none are named.

    `matris surfaces crystal.cif --max-index 2`
    """
    with clear_errors():
        from matris.makers import BatchSurfacesMaker

        maker = BatchSurfacesMaker(
            checkpoint=checkpoint,
            dispersion=dispersion,
            optimizer=optimizer,
            max_index=max_index,
            min_slab=min_slab,
            min_vacuum=min_vacuum,
            fmax=fmax,
            max_steps=max_steps,
        )
        submission = submission_of(project, worker, resource, device) if submit else None
        _properties("surfaces", files, maker, device, store, output, report, submission)


def md(
    files: Files,
    ensemble: Annotated[
        Literal["nve", "nvt", "npt"],
        typer.Option(help="Ensemble: nvt has a Langevin thermostat, npt also a barostat that changes the whole cell."),
    ] = "nvt",
    temperature: Annotated[
        float, typer.Option(metavar="K", min=0.0, help="Temperature of initial velocities and thermostat (K).")
    ] = 300.0,
    final_temperature: Annotated[
        float | None,
        typer.Option(
            metavar="K", min=0.0, help="Temperature to which the thermostat goes linearly (K).", show_default="none"
        ),
    ] = None,
    pressure: Annotated[float, typer.Option(metavar="P", help="Pressure of the npt ensemble (GPa).")] = 0.0,
    n_steps: Annotated[int, typer.Option(metavar="N", min=1, help="Number of time steps per structure.")] = 1000,
    time_step: Annotated[float, typer.Option(metavar="FS", help="Time step of the integrator (fs).")] = 1.0,
    interval: Annotated[int, typer.Option(metavar="N", min=1, help="Number of time steps between saved frames.")] = 10,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed for initial velocities and noise.")] = 0,
    thermostat_time: Annotated[
        float, typer.Option(metavar="FS", help="Inverse of the friction of the thermostat (fs).")
    ] = 100.0,
    trajectory_dir: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for the trajectories, as extended XYZ files.")
    ] = Path("trajectories"),
    hdf5: Annotated[
        bool,
        typer.Option("--hdf5", help="Copy complete trajectories into torch-sim's HDF5 format, in the same folder."),
    ] = False,
    checkpoint: Checkpoint = None,
    dispersion: Dispersion = None,
    device: Devices = None,
    store: Store = None,
    output: Format = "table",
    report: Page = None,
    submit: Submit = False,
    project: Project = None,
    worker: Worker = None,
    resource: Resource = None,
) -> None:
    """
    Run molecular dynamics: mean temperature (K), pressure (GPa), volume (Å³), energy (eV/atom), diffusion (cm²/s).

    The input cells are used unchanged: give supercells of some hundred atoms. Structures whose trajectory in the folder
    is complete are not computed again. With --submit, trajectories stay on the worker's disk.

    `matris md supercell.vasp --ensemble npt --temperature 600 --n-steps 20000`
    """
    with clear_errors():
        from matris.makers import BatchMDMaker

        maker = BatchMDMaker(
            checkpoint=checkpoint,
            dispersion=dispersion,
            ensemble=ensemble,
            temperature=temperature,
            final_temperature=final_temperature,
            pressure=pressure,
            time_step=time_step,
            n_steps=n_steps,
            interval=interval,
            seed=seed,
            thermostat_time=thermostat_time,
            trajectory_dir=str(trajectory_dir),
            hdf5=hdf5,
        )
        try:
            maker.settings()
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
        submission = submission_of(project, worker, resource, device) if submit else None
        _properties("md", files, maker, device, store, output, report, submission)


def diffusion(
    files: Files,
    temperatures: Annotated[
        str, typer.Option(metavar="K,K", help="Temperatures (K), separated by commas; all run together.")
    ] = "600,800,1000,1200",
    charges: Annotated[
        str | None,
        typer.Option(
            metavar="X=Z,X=Z",
            help="Charges of elements (e), such as Li=1.",
            show_default="oxidation states of the input, else guessed from the composition",
        ),
    ] = None,
    ensemble: Annotated[
        Literal["nvt", "npt"],
        typer.Option(help="Ensemble: nvt has a Langevin thermostat, npt also a barostat that changes the whole cell."),
    ] = "nvt",
    pressure: Annotated[float, typer.Option(metavar="P", help="Pressure of the npt ensemble (GPa).")] = 0.0,
    n_steps: Annotated[int, typer.Option(metavar="N", min=1, help="Number of time steps per temperature.")] = 50_000,
    time_step: Annotated[float, typer.Option(metavar="FS", help="Time step of the integrator (fs).")] = 1.0,
    interval: Annotated[int, typer.Option(metavar="N", min=1, help="Number of time steps between saved frames.")] = 50,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed of the first temperature.")] = 0,
    thermostat_time: Annotated[
        float, typer.Option(metavar="FS", help="Inverse of the friction of the thermostat (fs).")
    ] = 1000.0,
    trajectory_dir: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for the trajectories, as extended XYZ files.")
    ] = Path("trajectories"),
    checkpoint: Checkpoint = None,
    dispersion: Dispersion = None,
    device: Devices = None,
    store: Store = None,
    output: Format = "table",
    report: Page = None,
    submit: Submit = False,
    project: Project = None,
    worker: Worker = None,
    resource: Resource = None,
) -> None:
    """
    Compute diffusion coefficients, activation energies, and ionic conductivity at 300 K, by molecular dynamics.

    The input cells are used unchanged: give supercells of some hundred atoms. After an interruption, the same command
    goes on from the last frames.

    `matris diffusion supercell.vasp --temperatures 600,800,1000 --n-steps 100000`
    """
    with clear_errors():
        from matris.makers import BatchDiffusionMaker

        try:
            maker = BatchDiffusionMaker(
                checkpoint=checkpoint,
                dispersion=dispersion,
                temperatures=_temperatures(temperatures),
                charges=_charges(charges),
                ensemble=ensemble,
                pressure=pressure,
                time_step=time_step,
                n_steps=n_steps,
                interval=interval,
                seed=seed,
                thermostat_time=thermostat_time,
                trajectory_dir=str(trajectory_dir),
            )
            maker.settings()
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
        submission = submission_of(project, worker, resource, device) if submit else None
        _properties("diffusion", files, maker, device, store, output, report, submission)


def _temperatures(text: str) -> list[float]:
    """Read temperatures, separated by commas."""
    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise ValueError(f"temperatures must be numbers, separated by commas, got {text!r}") from None


def _charges(text: str | None) -> dict[str, float] | None:
    """Read charges by element, such as ``Li=1,S=-2``."""
    from pymatgen.core import Element

    if text is None:
        return None
    pairs = [part.partition("=") for part in text.split(",")]
    try:
        found = {name.strip(): float(charge) for name, _, charge in pairs}
    except ValueError:
        raise ValueError(f"charges must be given as Li=1,S=-2, got {text!r}") from None
    if unknown := [name for name in found if not Element.is_valid_symbol(name)]:
        raise ValueError(f"charges are given by element, and {', '.join(unknown)} is none")
    return found


def _properties(
    name: str,
    files: Sequence[Path],
    maker: BatchMaker,
    device: str | None,
    store: str | None,
    output: str,
    report: Path | None,
    submission: Submission | None = None,
    folder: Path | None = None,
) -> None:
    """Compute a property of all structures in some files, print the results, and write an HTML page and files."""
    from matris.flows.local.property_run import compute_properties
    from matris.stores.database.jobstore import local_folder
    from matris.stores.report.property_kinds import KINDS
    from matris.stores.report.property_page import write_property_report

    documents: Sequence[Document] | None
    if submission is not None:
        maker.device = device
        documents = submit_properties(name, files, maker, submission, store)
        if documents is None:
            return
    else:
        maker.card()  # an error here has one line, and comes before the structures are read
        with CampaignProgress() as progress:
            documents = compute_properties(files, maker, store, named_devices(device), progress.watch)
    kind = KINDS[name]
    _show_properties(documents, output, kind)
    if documents:
        title = f"{kind.title}: {shortened([path.name or str(path) for path in files])}"
        with stderr.status("Writing the page …"):
            page = write_property_report(documents, report or local_folder(store), title)
        stderr.print(f"Report: {escape(str(page))}", soft_wrap=True)
    if folder is not None:
        from matris.properties.phonon_files import write_phonon_files
        from matris.stores.report.formats import plural

        if n_folders := write_phonon_files(documents, folder):
            what = plural(n_folders, "material")
            stderr.print(f"Force constants and bands of {what}: {escape(str(folder))}", soft_wrap=True)
    warn_of_demonstrator(documents)
    exit_by_states(documents)


def _show_properties(documents: Sequence[Document], output: str, kind: PropertyKind) -> None:
    """Print a table or CSV with one material per line, or whole documents as JSON."""
    from matris.stores.report.elastic_constants import ALL, constants, independent

    if output == "json":
        write_json(documents)
        return
    rows = [kind.row(d) for d in documents]
    is_elastic = kind.mark == "elastic_tensor"
    if output == "csv":
        names = [*kind.columns, *(f"{name}\nGPa" for name in ALL if is_elastic)]
        tensors = [constants(d) for d in documents]
        write_columns(
            ["formula", "state", *names, "reliable", "source", "error", "warnings"],
            [
                [d.get("formula_pretty"), d["state"], *cells]
                + [tensor.get(name) for name in ALL if is_elastic]
                + [d.get("is_reliable"), d["source"], d["error"], "; ".join(d["warnings"])]
                for d, cells, tensor in zip(documents, rows, tensors, strict=True)
            ],
        )
        return
    formula = Column("formula", [d.get("formula_pretty") or "–" for d in documents])
    values = [
        numbers(name, column, digits)
        for name, digits, column in zip(
            kind.columns, kind.digits, map(list, zip(*rows, strict=True)), strict=bool(rows)
        )
        if any(value is not None for value in column)
    ]
    others = [numbers("state", [d["state"] for d in documents])]
    others.append(numbers("reliable", [d.get("is_reliable") for d in documents]))
    remarks = ["; ".join([d["source"], *([d["error"]] if d["error"] else []), *d["warnings"]]) for d in documents]
    print_table([formula, *values, *others, Column("source, reason, warnings", remarks, shrinks="fold")])
    if kind.parts is not None:
        _show_parts(documents, kind.parts)
    tensors = [constants(d) for d in documents]
    if any(tensors):
        names = independent(d for d, tensor in zip(documents, tensors, strict=True) if tensor)
        columns = [numbers(f"{name}\nGPa", [tensor.get(name) for tensor in tensors], 1) for name in names]
        source = Column("source", [d["source"] for d in documents], shrinks="cut")
        stdout().print()
        print_table([formula, *columns, source], title="Elastic constants in the standard axes (IEEE)")


def _show_parts(documents: Sequence[Document], parts: Parts) -> None:
    """Print a table with one part of a material per line."""
    rows = [(document, row) for document in documents for row in parts.rows(document)]
    if not rows:
        return
    formulas = Column("formula", [document.get("formula_pretty") or "–" for document, _ in rows])
    columns = [
        numbers(name, list(values), digits)
        for name, digits, values in zip(
            parts.columns, parts.digits, zip(*(row for _, row in rows), strict=True), strict=True
        )
    ]
    stdout().print()
    print_table([formulas, *columns], title=parts.title)
