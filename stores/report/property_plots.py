"""Pictures of property documents: pure functions from a document with its arrays to a plotly figure."""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.constants import R, e, k

from matris.stores.documents.properties import band_structure_of, dos_of
from matris.stores.report.band_lines import breaks_of, connections_of, joined, segments_of, split_at_zero, ticks_of
from matris.stores.report.figure_style import (
    ACCENT,
    BAD,
    GOOD,
    GRID,
    INK,
    LINE,
    PAPER,
    SECOND,
    THIRD,
    curve,
    read,
    subplots,
    titled,
)
from matris.stores.report.young_modulus import extreme_young_moduli, sphere, unit_vectors, young_modulus
from matris.units import GPA

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import plotly.graph_objects as go
    from numpy.typing import NDArray

    from matris.stores.report.figure_style import Document

    type Floats = NDArray[np.float64]

_COLOURS = (ACCENT, SECOND, THIRD, BAD, GOOD)
_CURVE_POINTS = 120
_FAINT = 5e-3  # of the largest density of states: axes end where there is less
_FIXED = 1e-6  # largest relative change of a fixed volume
_DYNAMICS = (
    ("temperature", "temperature (K)", "%{y:.1f} K"),
    ("potential_energy", "energy (eV/atom)", "%{y:.4f} eV/atom"),
    ("volume", "volume (Å³)", "%{y:.2f} Å³"),
    ("pressure", "pressure (GPa)", "%{y:.3f} GPa"),
)
_DECADE = 10


def plot_phonons(document: Document) -> go.Figure:
    r"""
    Draw phonon bands along a path through the Brillouin zone, with the density of states on the right.

    Parameters
    ----------
    document
        Fields of a `matris.stores.documents.properties.PhononDocument`.

    Returns
    -------
    plotly.graph_objects.Figure
        Frequencies in THz, imaginary ones negative and red. Negative frequencies are rounding errors, and not red, if
        the document has no imaginary modes. One trace for each band, and one for each imaginary part of a band.

    Raises
    ------
    ValueError
        If the document has no bands or no density of states.

    Examples
    --------
    >>> from pymatgen.core import Lattice, Structure
    >>> from pymatgen.phonon.bandstructure import PhononBandStructureSymmLine
    >>> from pymatgen.phonon.dos import CompletePhononDos, PhononDos
    >>> iron = Structure(Lattice.cubic(2.9), ["Fe"], [[0, 0, 0]])
    >>> path = [[0, 0, 0], [0.25, 0, 0], [0.5, 0, 0]]
    >>> ends = {r"\Gamma": path[0], "X": path[2]}
    >>> frequencies = np.array([[0.0, 2.5, 4.0], [5.0, 5.5, 6.0]])
    >>> bands = PhononBandStructureSymmLine(path, frequencies, iron.lattice.reciprocal_lattice, labels_dict=ends)
    >>> dos = CompletePhononDos(iron, PhononDos([0.0, 6.0], [0.0, 1.0]), {iron[0]: [0.0, 1.0]})
    >>> figure = plot_phonons({"formula_pretty": "MgO", "phonon_bandstructure": bands, "phonon_dos": dos})
    >>> [trace.name for trace in figure.data]
    ['band 1', 'band 2', 'density of states']
    """
    name, fields = read(document, "phonon_bandstructure", "phonon_dos")
    segments, dos = segments_of(band_structure_of(fields["phonon_bandstructure"])), dos_of(fields["phonon_dos"])
    figure = subplots(rows=1, cols=2, column_widths=[0.78, 0.22], shared_yaxes=True, horizontal_spacing=0.02)
    frequencies = [segment.frequencies for segment in segments]
    breaks = breaks_of(frequencies, connections_of(segments))
    distances = joined([segment.distances for segment in segments], breaks)
    imaginary = fields.get("has_imaginary_modes") is not False  # otherwise negative frequencies are rounding errors
    for number, branch in enumerate(joined(frequencies, breaks).T, start=1):
        above, below = split_at_zero(distances, branch) if imaginary else ((distances, branch), None)
        hover = f"band {number}: %{{y:.3f}} THz<extra></extra>"
        style = {"mode": "lines", "hovertemplate": hover, "showlegend": False, "row": 1, "col": 1}
        figure.add_scatter(**_typed(*above), line={"color": ACCENT, "width": 1.4}, name=f"band {number}", **style)
        if below is not None:
            line = {"color": BAD, "width": 1.8}
            figure.add_scatter(**_typed(*below), line=line, name=f"band {number}, imaginary", **style)
    _draw_dos(figure, np.asarray(dos.frequencies), np.asarray(dos.densities), imaginary=imaginary)
    ticks = ticks_of(segments)
    places = [place for place, _ in ticks]
    for place in places[1:-1]:
        figure.add_vline(x=place, line={"color": LINE, "width": 0.8}, row=1, col=1)
    figure.update_xaxes(
        tickvals=places,
        ticktext=[label for _, label in ticks],
        range=[places[0], places[-1]],
        showgrid=False,
        zeroline=False,
        row=1,
        col=1,
    )
    figure.update_yaxes(zeroline=True, zerolinecolor=LINE)
    figure.update_yaxes(title="frequency (THz)", row=1, col=1)
    no_labels = {"showticklabels": False}  # the label 0 would meet that of the last point
    figure.update_xaxes(title="states/THz", rangemode="tozero", **no_labels, row=1, col=2)
    return titled(figure, f"{name}: phonons", height=460)


def plot_thermal(document: Document) -> go.Figure:
    """
    Draw Helmholtz free energy, entropy and heat capacity of harmonic phonons against temperature.

    Parameters
    ----------
    document
        Fields of a `matris.stores.documents.properties.PhononDocument`.

    Returns
    -------
    plotly.graph_objects.Figure
        Left: free energy, kJ/mol. Right: entropy and heat capacity at constant volume, J/K/mol, with the Dulong–Petit
        limit 3R. All values are per mole of atoms.

    Raises
    ------
    ValueError
        If the document has no thermal properties.

    Examples
    --------
    >>> document = {
    ...     "formula_pretty": "MgO",
    ...     "temperatures": [0.0, 300.0],
    ...     "free_energies": [7e3, 5e3],
    ...     "entropies": [0.0, 13.5],
    ...     "heat_capacities": [0.0, 18.5],
    ... }
    >>> [trace.name for trace in plot_thermal(document).data]
    ['F', 'S', 'C<sub>V</sub>']
    """
    name, fields = read(document, "temperatures", "free_energies", "entropies", "heat_capacities")
    t = fields["temperatures"]
    figure = subplots(rows=1, cols=2, horizontal_spacing=0.11)
    energy = np.asarray(fields["free_energies"], dtype=float) / 1e3
    entropy, capacity = (np.asarray(fields[key], dtype=float) for key in ("entropies", "heat_capacities"))
    left = {"row": 1, "col": 1}
    right = {"row": 1, "col": 2}
    curve(figure, t, energy, "F", ACCENT, "%{y:.2f} kJ/mol", **left)
    curve(figure, t, entropy, "S", SECOND, "%{y:.2f} J/K/mol", **right)
    curve(figure, t, capacity, "C<sub>V</sub>", THIRD, "%{y:.2f} J/K/mol", **right)
    figure.add_hline(
        y=3 * R,
        line={"color": LINE, "width": 1, "dash": "dot"},
        annotation={"text": "3R", "font": {"color": LINE, "size": 12}},
        annotation_position="bottom right",
        **right,
    )
    figure.update_layout(meta={"panels": 2})
    figure.update_xaxes(title="temperature (K)")
    figure.update_yaxes(title="F (kJ/mol of atoms)", **left)
    figure.update_yaxes(title="S, C<sub>V</sub> (J/K/mol of atoms)", rangemode="tozero", **right)
    return titled(figure, f"{name}: harmonic thermodynamics", height=360)


def plot_elastic(document: Document) -> go.Figure:
    """
    Draw Young's modulus against direction, as a surface whose distance from the centre is the modulus.

    Parameters
    ----------
    document
        Fields of a `matris.stores.documents.properties.ElasticDocument`.

    Returns
    -------
    plotly.graph_objects.Figure
        Surface and its colour in GPa, in the Cartesian axes of the document's structure; see `young_modulus` for the
        formula.

    Raises
    ------
    ValueError
        If the document has no elastic tensor, or the tensor is not positive definite.

    Examples
    --------
    >>> tensor = np.diag([47.0] * 3 + [75.4] * 3)
    >>> tensor[:3, :3] += 121.4
    >>> figure = plot_elastic({"formula_pretty": "Cu", "elastic_tensor": {"raw": tensor.tolist()}})
    >>> figure.layout.title.text
    'Cu: Young’s modulus from 66.7 to 191.1 GPa'
    """
    name, fields = read(document, "elastic_tensor")
    tensor = fields["elastic_tensor"]["raw"]
    n = unit_vectors(*sphere())
    try:
        modulus = young_modulus(tensor, n)
    except ValueError as error:
        raise ValueError(f"{fields.get('formula_pretty')}: {error}") from None
    low, high = extreme_young_moduli(tensor)
    figure = subplots(rows=1, cols=1, specs=[[{"type": "scene"}]])
    figure.add_surface(
        **{axis: (modulus * n[..., i]).astype(np.float32) for i, axis in enumerate("xyz")},
        surfacecolor=modulus.astype(np.float32),
        cmin=min(low, 0.98 * high),  # noise must not look like anisotropy
        cmax=high,
        colorscale=[[0, "#2a4d8f"], [0.35, "#2a9d8f"], [0.7, "#e9c46a"], [1, "#c8553d"]],
        colorbar={"title": {"text": "E (GPa)"}, "thickness": 12, "len": 0.7},
        lighting={"ambient": 0.75, "diffuse": 0.5, "specular": 0.05},
        customdata=n.astype(np.float32),
        hovertemplate="E = %{surfacecolor:.1f} GPa<br>along (%{customdata[0]:.2f}, %{customdata[1]:.2f}, "
        "%{customdata[2]:.2f})<extra></extra>",
    )
    reach = 1.05 * high
    axis = {"gridcolor": GRID, "zerolinecolor": LINE, "showbackground": False, "range": [-reach, reach]}
    axis |= {"nticks": 5, "tickfont": {"size": 11}}
    titles = {f"{letter}axis": {"title": letter, **axis} for letter in "xyz"}
    camera = {"eye": {"x": 1.55, "y": 1.4, "z": 0.9}, "center": {"x": 0, "y": 0, "z": -0.14}}
    figure.update_layout(scene={"aspectmode": "cube", "camera": camera, **titles})
    titled(figure, f"{name}: Young’s modulus from {low:.1f} to {high:.1f} GPa", height=520)
    return figure.update_layout(margin={"l": 0, "r": 10, "t": 40, "b": 0})


def plot_eos(document: Document) -> go.Figure:
    """
    Draw energies of scaled cells and the equations of state fitted to them.

    Parameters
    ----------
    document
        Fields of a `matris.stores.documents.properties.EosDocument`.

    Returns
    -------
    plotly.graph_objects.Figure
        Top: energy (eV per cell) against volume (Å³ per cell), with a curve for each equation. Bottom: residuals of
        each fit, meV per cell.

    Raises
    ------
    ValueError
        If the document has no energies or no fit.

    Examples
    --------
    >>> fit = {"equation": "vinet", "e0": -12.0, "v0": 40.0, "b0": 90.0, "b1": 4.5}
    >>> document = {"formula_pretty": "MgO", "volumes": [38, 40, 42], "energies": [-11.97, -12, -11.97], "fits": [fit]}
    >>> plot_eos(document).layout.title.text
    'MgO: equation of state, V<sub>0</sub> = 40.00 Å³'
    """
    from pymatgen.analysis.eos import EOS  # loads matplotlib

    name, fields = read(document, "volumes", "energies", "fits")
    volumes, energies = (np.asarray(fields[key], dtype=float) for key in ("volumes", "energies"))
    figure = subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.72, 0.28], vertical_spacing=0.06)
    margin = 0.02 * np.ptp(volumes)
    v = np.linspace(volumes.min() - margin, volumes.max() + margin, _CURVE_POINTS)
    for fit, colour in zip(fields["fits"], cycle(_COLOURS), strict=False):
        equation = EOS.MODELS[fit["equation"]](volumes, energies)
        equation.eos_params = (fit["e0"], fit["b0"] / GPA, fit["b1"], fit["v0"])
        label = f"{_words(fit['equation'])}: B<sub>0</sub> = {fit['b0']:.1f} GPa"
        curve(figure, v, equation(v), label, colour, "%{y:.4f} eV", row=1, col=1)
        left = 1e3 * (energies - equation(volumes))
        style = {"color": colour, "width": 1}
        marks = {"mode": "lines+markers", "marker": {"color": colour, "size": 6}, "line": style, "showlegend": False}
        figure.add_scatter(x=volumes, y=left, name=_words(fit["equation"]), **marks, row=2, col=1)
    marker = {"color": PAPER, "size": 9, "line": {"color": INK, "width": 1.6}}
    figure.add_scatter(x=volumes, y=energies, mode="markers", marker=marker, name="computed", row=1, col=1)
    figure.update_xaxes(title="volume (Å³ per cell)", row=2, col=1)
    figure.update_yaxes(title="energy (eV per cell)", row=1, col=1)
    figure.update_yaxes(title="residual (meV)", zeroline=True, zerolinecolor=LINE, row=2, col=1)
    first = fields["fits"][0]
    return titled(figure, f"{name}: equation of state, V<sub>0</sub> = {first['v0']:.2f} Å³", height=480)


def plot_qha(document: Document) -> go.Figure:
    """
    Draw quasi-harmonic volume, thermal expansion, bulk modulus and heat capacity against temperature.

    Parameters
    ----------
    document
        Fields of a `matris.stores.documents.properties.QhaDocument`.

    Returns
    -------
    plotly.graph_objects.Figure
        Four panels: volume (Å³ per cell), volumetric expansion (10⁻⁶/K), bulk modulus (GPa), heat capacity at
        constant pressure (J/K/mol of atoms).

    Raises
    ------
    ValueError
        If the document has no results.

    Examples
    --------
    >>> document = {
    ...     "formula_pretty": "MgO",
    ...     "temperatures": [0.0, 300.0],
    ...     "volume_temperature": [74.6, 75.4],
    ...     "thermal_expansion": [0.0, 31e-6],
    ...     "bulk_modulus_temperature": [164.0, 160.0],
    ...     "heat_capacity_p_numerical": [0.0, 150.0],
    ... }
    >>> plot_qha(document).layout.yaxis.title.text
    'volume (Å³ per cell)'
    """
    panels = {
        "volume_temperature": ("volume (Å³ per cell)", 1.0, "%{y:.3f} Å³"),
        "thermal_expansion": ("expansion (10<sup>−6</sup>/K)", 1e6, "%{y:.2f}·10<sup>−6</sup>/K"),
        "bulk_modulus_temperature": ("bulk modulus (GPa)", 1.0, "%{y:.2f} GPa"),
        "heat_capacity_p_numerical": ("C<sub>p</sub> (J/K/mol of atoms)", 1.0, "%{y:.2f} J/K/mol"),
    }
    name, fields = read(document, "temperatures", *panels)
    figure = subplots(rows=2, cols=2, shared_xaxes=True, horizontal_spacing=0.12, vertical_spacing=0.08)
    for number, (field, (title, factor, hover)) in enumerate(panels.items()):
        place = {"row": number // 2 + 1, "col": number % 2 + 1}
        y = factor * np.asarray(fields[field], dtype=float)
        curve(figure, fields["temperatures"], y, title, ACCENT, hover, **place)
        figure.update_yaxes(title=title, **place)
    figure.update_xaxes(title="temperature (K)", row=2)
    figure.update_layout(showlegend=False, meta={"panels": len(panels)})
    return titled(figure, f"{name}: quasi-harmonic thermodynamics", height=560)


def plot_kappa(document: Document) -> go.Figure:
    """
    Draw the lattice thermal conductivity against temperature, and the modes that carry it.

    Parameters
    ----------
    document
        Fields of a `matris.stores.documents.properties.KappaDocument`.

    Returns
    -------
    plotly.graph_objects.Figure
        Left: conductivity (W/m/K), mean of the directions, its part by tunnelling between bands, and the conductivity
        on the coarser mesh. Middle: conductivity of all modes below a frequency. Right: lifetimes (ps) of the modes.

    Raises
    ------
    ValueError
        If the document has no conductivities or no modes.

    Examples
    --------
    >>> modes = {
    ...     "temperature": 300.0,
    ...     "weights": [1],
    ...     "frequencies": [[2.0, 5.0]],
    ...     "lifetimes": [[10.0, None]],
    ...     "conductivities": [[30.0, 20.0]],
    ... }
    >>> kappa = {"temperatures": [300.0, 600.0], "kappa_mean": [50.0, 25.0], "kappa_coherence_mean": [0.5, 0.6]}
    >>> figure = plot_kappa({"formula_pretty": "MgO", **kappa, "kappa_mean_coarse": [48.0, 24.0], "modes": modes})
    >>> float(figure.data[3].y[-1])  # of all modes
    50.0
    """
    name, fields = read(document, "temperatures", "kappa_mean", "kappa_coherence_mean", "kappa_mean_coarse", "modes")
    figure = subplots(rows=1, cols=3, horizontal_spacing=0.09)
    lines = (("κ", "kappa_mean", ACCENT), ("coherence", "kappa_coherence_mean", SECOND))
    for label, field, colour in (*lines, ("coarser mesh", "kappa_mean_coarse", THIRD)):
        curve(figure, fields["temperatures"], fields[field], label, colour, "%{y:.4g} W/m/K", row=1, col=1)
    figure.update_traces(line={"dash": "dot", "width": 1.4}, selector={"name": "coarser mesh"})
    modes = fields["modes"]
    frequencies = np.ravel(np.asarray(modes["frequencies"], dtype=float))
    lifetimes = np.ravel(np.array(modes["lifetimes"], dtype=float))
    order = np.argsort(frequencies)
    below = np.cumsum(np.ravel(np.asarray(modes["conductivities"], dtype=float))[order])
    hover = "%{y:.4g} W/m/K"
    curve(figure, frequencies[order], below, "modes below", ACCENT, hover, row=1, col=2)
    figure.add_scatter(
        x=frequencies,
        y=lifetimes,
        mode="markers",
        marker={"color": ACCENT, "size": 4, "opacity": 0.6},
        name="lifetime",
        hovertemplate="%{x:.3f} THz: %{y:.3g} ps<extra></extra>",
        row=1,
        col=3,
    )
    figure.update_traces(showlegend=False, selector=lambda trace: trace.name in {"modes below", "lifetime"})
    figure.update_xaxes(title="temperature (K)", row=1, col=1)
    figure.update_xaxes(title="frequency (THz)", row=1, col=2)
    figure.update_xaxes(title="frequency (THz)", row=1, col=3)
    figure.update_yaxes(title="κ (W/m/K)", rangemode="tozero", row=1, col=1)
    figure.update_yaxes(title="κ of modes below (W/m/K)", rangemode="tozero", row=1, col=2)
    known = lifetimes[np.isfinite(lifetimes) & (lifetimes > 0)]
    is_wide = known.size > 0 and known.max() > _DECADE * known.min()
    figure.update_yaxes(title="lifetime (ps)", type="log", dtick=1 if is_wide else "D2", row=1, col=3)  # 1, 2, 5
    figure.update_layout(meta={"panels": 3})
    return titled(figure, f"{name}: lattice thermal conductivity, modes at {modes['temperature']:g} K", height=420)


def plot_barriers(document: Document) -> go.Figure:
    """
    Draw the energies along migration paths.

    Parameters
    ----------
    document
        Fields of a `matris.stores.documents.properties.NebDocument`.

    Returns
    -------
    plotly.graph_objects.Figure
        One curve for each path: energy above its start (eV) against the length of the path (Å).

    Raises
    ------
    ValueError
        If the document has no paths.

    Examples
    --------
    >>> path = {"name": "Li 2.9 Å", "distances": [0.0, 1.5, 3.0], "energies": [0.0, 0.4, 0.0]}
    >>> plot_barriers({"formula_pretty": "LiCoO2", "paths": [path]}).data[0].name
    'Li 2.9 Å'
    """
    name, fields = read(document, "paths")
    figure = subplots(rows=1, cols=1)
    drawn = [path for path in fields["paths"] if path.get("energies")]
    for colour, path in zip(cycle(_COLOURS), drawn, strict=False):
        curve(figure, path["distances"], path["energies"], path["name"], colour, "%{y:.3f} eV", row=1, col=1)
    figure.update_traces(mode="lines+markers", line_shape="spline", showlegend=True)
    figure.update_xaxes(title="path (Å)")
    figure.update_yaxes(title="energy above the start (eV)")
    return titled(figure, f"{name}: migration barriers", height=400)


def limit_name(limit: Mapping[str, Any]) -> str:
    """
    Name a limit of chemical potentials by the phases that are in equilibrium with the crystal.

    Examples
    --------
    >>> limit_name({"phases": ["Na", "Cl2"]}), limit_name({"phases": []})
    ('Na + Cl2', 'itself')
    """
    return " + ".join(limit["phases"]) or "itself"


def plot_defects(document: Document) -> go.Figure:
    """
    Draw the formation energies of point defects at the limits of the chemical potentials.

    Parameters
    ----------
    document
        Fields of a `matris.stores.documents.properties.DefectsDocument`.

    Returns
    -------
    plotly.graph_objects.Figure
        One line for each defect: formation energy (eV) against the phases that are in equilibrium with the crystal.

    Raises
    ------
    ValueError
        If the document has no defects.

    Examples
    --------
    >>> defect = {"name": "v_Cl", "formation_energies": [1.0, 4.5]}
    >>> limits = [{"phases": ["Na"], "potentials": {}}, {"phases": ["Cl2"], "potentials": {}}]
    >>> figure = plot_defects({"formula_pretty": "NaCl", "defects": [defect], "limits": limits})
    >>> figure.data[0].name, list(figure.data[0].x)
    ('v_Cl', ['Na', 'Cl2'])
    """
    name, fields = read(document, "defects", "limits")
    figure = subplots(rows=1, cols=1)
    limits = [limit_name(limit) for limit in fields["limits"]]
    drawn = [defect for defect in fields["defects"] if defect.get("formation_energies")]
    for colour, defect in zip(cycle(_COLOURS), drawn, strict=False):
        figure.add_scatter(
            x=limits,
            y=defect["formation_energies"],
            mode="lines+markers",
            line={"color": colour, "width": 2},
            name=defect["name"],
            hovertemplate="%{y:.3f} eV<extra></extra>",
        )
    figure.update_xaxes(title="in equilibrium with", type="category")
    figure.update_yaxes(title="formation energy (eV)", rangemode="tozero")
    figure.update_layout(showlegend=True)
    return titled(figure, f"{name}: neutral point defects", height=420)


def plot_surfaces(document: Document) -> go.Figure:
    """
    Draw surface energies as bars.

    Parameters
    ----------
    document
        Fields of a `matris.stores.documents.properties.SurfacesDocument`.

    Returns
    -------
    plotly.graph_objects.Figure
        Surface energies in J/m², lowest first; those on the equilibrium shape in another colour.

    Raises
    ------
    ValueError
        If the document has no surfaces.

    Examples
    --------
    >>> rough = {"name": "(1 1 0)", "surface_energy": 0.9, "area_fraction": 0.0}
    >>> flat = {"name": "(1 1 1)", "surface_energy": 0.7, "area_fraction": 1.0}
    >>> list(plot_surfaces({"formula_pretty": "Al", "surfaces": [rough, flat]}).data[0].x)
    ['(1 1 1)', '(1 1 0)']
    """
    name, fields = read(document, "surfaces")
    drawn = [surface for surface in fields["surfaces"] if surface.get("surface_energy") is not None]
    drawn.sort(key=lambda surface: surface["surface_energy"])
    figure = subplots(rows=1, cols=1)
    figure.add_bar(
        x=[surface["name"] for surface in drawn],
        y=[surface["surface_energy"] for surface in drawn],
        marker_color=[ACCENT if surface.get("area_fraction") else LINE for surface in drawn],
        customdata=[1e2 * (surface.get("area_fraction") or 0.0) for surface in drawn],
        hovertemplate="%{x}: %{y:.3f} J/m², %{customdata:.1f} % of the shape<extra></extra>",
    )
    figure.update_xaxes(type="category")
    figure.update_yaxes(title="surface energy (J/m²)")
    return titled(figure, f"{name}: surface energies; coloured: on the equilibrium shape", height=360)


def plot_wulff(document: Document) -> go.Figure:
    """
    Draw the equilibrium shape of a crystal by Wulff's construction.

    Parameters
    ----------
    document
        Fields of a `matris.stores.documents.properties.SurfacesDocument`.

    Returns
    -------
    plotly.graph_objects.Figure
        The faces, in one colour for each orientation. Their distance from the centre is the surface energy, J/m².

    Raises
    ------
    ValueError
        If the document has no equilibrium shape.

    Examples
    --------
    >>> corners = [[1, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0]]
    >>> face = {"miller_index": [0, 0, 1], "corners": corners}
    >>> [trace.name for trace in plot_wulff({"formula_pretty": "Al", "wulff_faces": [face]}).data]
    ['(0 0 1)', 'edges']
    """
    name, fields = read(document, "wulff_faces")
    figure = subplots(rows=1, cols=1, specs=[[{"type": "scene"}]])
    by_index: dict[str, list[Floats]] = {}
    for face in fields["wulff_faces"]:
        label = f"({' '.join(map(str, face['miller_index']))})"
        by_index.setdefault(label, []).append(np.asarray(face["corners"], dtype=float))
    for colour, (label, faces) in zip(cycle(_COLOURS), by_index.items(), strict=False):
        starts = np.cumsum([0, *(len(corners) for corners in faces)])
        fans = [
            (s, s + i, s + i + 1) for s, corners in zip(starts, faces, strict=False) for i in range(1, len(corners) - 1)
        ]
        x, y, z = np.concatenate(faces).T
        i, j, k = np.array(fans).T
        figure.add_mesh3d(x=x, y=y, z=z, i=i, j=j, k=k, color=colour, flatshading=True, name=label, showlegend=True)
    outlines = [np.vstack([face, face[:1], np.full((1, 3), np.nan)]) for faces in by_index.values() for face in faces]
    x, y, z = np.concatenate(outlines).T
    figure.add_scatter3d(x=x, y=y, z=z, mode="lines", line={"color": INK, "width": 3}, name="edges", showlegend=False)
    figure.update_traces(hoverinfo="name")
    hidden = {axis: {"visible": False} for axis in ("xaxis", "yaxis", "zaxis")}
    figure.update_layout(scene={"aspectmode": "data", **hidden})
    return titled(figure, f"{name}: equilibrium shape", height=480)


def plot_dynamics(document: Document) -> go.Figure:
    """
    Draw temperature, energies, volume and pressure of a molecular-dynamics run against time.

    Parameters
    ----------
    document
        Fields of a `matris.stores.documents.properties.DynamicsDocument`.

    Returns
    -------
    plotly.graph_objects.Figure
        Panels from top to bottom against time in ps: K, eV/atom, Å³ per cell (if the volume changes) and GPa (if the
        run recorded pressures). Dotted lines are means over the second half of the run.

    Raises
    ------
    ValueError
        If the document has no series.

    Examples
    --------
    >>> series = {"time": [0.0, 1000.0], "temperature": [290.0, 310.0], "potential_energy": [-5.0, -4.9]}
    >>> figure = plot_dynamics({"formula_pretty": "MgO", "series": series})
    >>> figure.layout.yaxis.title.text, figure.layout.xaxis2.title.text
    ('temperature (K)', 'time (ps)')
    """
    name, fields = read(document, "series")
    series = {key: np.asarray(values, dtype=float) for key, values in fields["series"].items() if values is not None}
    rows = [
        row
        for row in _DYNAMICS
        if row[0] in series and (row[0] != "volume" or np.ptp(series["volume"]) > _FIXED * series["volume"].max())
    ]
    figure = subplots(rows=len(rows), cols=1, shared_xaxes=True, vertical_spacing=0.035)
    time = series["time"] / 1e3
    for place, (key, title, hover) in enumerate(rows, start=1):
        curve(figure, time, series[key], key.replace("_", " "), ACCENT, hover, row=place, col=1)
        if key == "potential_energy" and "total_energy" in series:
            curve(figure, time, series["total_energy"], "total energy", SECOND, hover, row=place, col=1)
        mean = fields.get(f"mean_{key}")
        if mean is not None:
            figure.add_hline(y=mean, line={"color": LINE, "width": 1.2, "dash": "dot"}, row=place, col=1)
        figure.update_yaxes(title=title, row=place, col=1)
    figure.update_traces(line_width=1.2, showlegend=False)
    figure.update_traces(selector=lambda trace: trace.name.endswith("energy"), showlegend=True)
    figure.update_xaxes(title="time (ps)", row=len(rows), col=1)
    return titled(figure, f"{name}: molecular dynamics", height=100 + 150 * len(rows))


def plot_correlations(document: Document) -> go.Figure:
    """
    Draw radial distribution functions and mean square displacements of a molecular-dynamics run.

    Parameters
    ----------
    document
        Fields of a `matris.stores.documents.properties.DynamicsDocument`.

    Returns
    -------
    plotly.graph_objects.Figure
        Left: radial distribution function of each pair of elements against the distance, Å. Right: mean square
        displacement of each element, Å², against time, ps, with standard errors and, dashed, the fit of the diffusion
        coefficient; empty if the run had too few frames.

    Raises
    ------
    ValueError
        If the document has no radial distribution functions.

    Examples
    --------
    >>> document = {
    ...     "formula_pretty": "Po",
    ...     "radial_distribution": {"distances": [3.3, 3.4], "pairs": {"Po-Po": [0.0, 4.1]}},
    ...     "mean_square_displacement": {"times": [0.0, 10.0], "elements": {"Po": [0.0, 0.02]}},
    ... }
    >>> [trace.name for trace in plot_correlations(document).data]
    ['Po–Po', 'Po']
    """
    name, fields = read(document, "radial_distribution")
    figure = subplots(rows=1, cols=2, horizontal_spacing=0.11)
    pairs, moved = fields["radial_distribution"], fields.get("mean_square_displacement") or {}
    colours = cycle(_COLOURS)
    for pair, values in pairs["pairs"].items():
        label = pair.replace("-", "–")
        curve(figure, pairs["distances"], values, label, next(colours), "%{y:.3f}", row=1, col=1)
    for element, values in moved.get("elements", {}).items():
        colour, found = next(colours), (fields.get("diffusion") or {}).get(element) or {}
        draw_displacement(figure, moved, element, values, element, colour, found, row=1, col=2)
    figure.update_xaxes(title="distance (Å)", row=1, col=1)
    figure.update_yaxes(title="g", rangemode="tozero", row=1, col=1)
    figure.update_xaxes(title="time (ps)", row=1, col=2)
    figure.update_yaxes(title="MSD (Å²)", rangemode="tozero", row=1, col=2)
    figure.update_layout(meta={"panels": 2})
    return titled(figure, f"{name}: radial distribution, mean square displacement (MSD)", height=360)


def plot_vibrations(document: Document) -> go.Figure:
    """
    Draw the vibrational density of states of a molecular-dynamics run.

    Parameters
    ----------
    document
        Fields of a `matris.stores.documents.properties.DynamicsDocument`.

    Returns
    -------
    plotly.graph_objects.Figure
        Density of states of each element, states per THz and atom, against the frequency, THz.

    Raises
    ------
    ValueError
        If the document has no density of states; with the reason.

    Examples
    --------
    >>> found = {"frequencies": [0.0, 1.0], "elements": {"Li": [0.1, 0.2]}, "resolution": 1.0}
    >>> [trace.name for trace in plot_vibrations({"formula_pretty": "Li", "vibrational_dos": found}).data]
    ['Li']
    """
    name, fields = read(document, "vibrational_dos")
    found = fields["vibrational_dos"]
    if problem := found.get("problem"):
        raise ValueError(f"{name} has no vibrational density of states: {problem}")
    figure = subplots(rows=1, cols=1)
    frequencies = np.asarray(found["frequencies"], dtype=float)
    seen = np.max(list(found["elements"].values()), axis=0)
    last = np.flatnonzero(seen > _FAINT * seen.max()).max() + 1
    for (element, values), colour in zip(found["elements"].items(), cycle(_COLOURS), strict=False):
        curve(figure, frequencies[: last + 1], values[: last + 1], element, colour, "%{y:.3f}", row=1, col=1)
    figure.update_traces(showlegend=True)
    figure.update_xaxes(title="frequency (THz)")
    figure.update_yaxes(title="states per THz and atom", rangemode="tozero")
    return titled(figure, f"{name}: vibrational density of states from velocities", height=360)


def plot_arrhenius(document: Document) -> go.Figure:
    """
    Draw diffusion coefficients against the inverse temperature, and the Arrhenius lines down to 300 K.

    Parameters
    ----------
    document
        Fields of a `matris.stores.documents.properties.DiffusionDocument`.

    Returns
    -------
    plotly.graph_objects.Figure
        Coefficients of each element with standard errors, cm²/s, logarithmic, against 1000/T, 1/K.

    Raises
    ------
    ValueError
        If the document has no results.

    Examples
    --------
    >>> point = {"coefficient": 1e-5, "error": 1e-6}
    >>> document = {
    ...     "formula_pretty": "LiF",
    ...     "arrhenius": {"Li": {"room": None}},
    ...     "runs": [{"temperature": 1000.0, "diffusion": {"Li": point, "F": {"coefficient": None}}}],
    ... }
    >>> [(trace.name, trace.x.tolist()) for trace in plot_arrhenius(document).data]
    [('Li', [1.0])]
    """
    name, fields = read(document, "arrhenius")
    figure = subplots(rows=1, cols=1)
    colours = cycle(_COLOURS)
    for element, line in fields["arrhenius"].items():
        points = [
            (run["temperature"], run["diffusion"][element])
            for run in fields["runs"]
            if (run["diffusion"].get(element) or {}).get("coefficient") is not None
        ]
        if not points:
            continue
        colour = next(colours)
        inverse = [1000 / kelvin for kelvin, _ in points]
        values = [found["coefficient"] for _, found in points]
        curve(figure, inverse, values, element, colour, "%{y:.2e} cm²/s", row=1, col=1)
        bars = {"type": "data", "array": [found["error"] for _, found in points], "thickness": 1.2, "width": 3}
        figure.data[-1].update(mode="markers", error_y=bars)
        if room := line["room"]:
            ends = np.array([min(inverse), 1000 / 300])
            drawn = room["value"] * np.exp(line["activation_energy"] * e / k * (ends[1] - ends) / 1000)
            label = f"{element}: {line['activation_energy']:.3f} eV"
            curve(figure, ends, drawn, label, colour, "%{y:.2e} cm²/s", row=1, col=1)
            figure.data[-1].update(line_dash="dash")
            span = [room["high"] - room["value"]], [room["value"] - room["low"]]
            bar = {"type": "data", "array": span[0], "arrayminus": span[1], "thickness": 1.2, "width": 3}
            curve(figure, ends[1:], [room["value"]], f"{element} at 300 K", colour, "%{y:.2e} cm²/s", row=1, col=1)
            figure.data[-1].update(mode="markers", error_y=bar, showlegend=False, marker_symbol="circle-open")
    figure.update_xaxes(title="1000/T (1/K)")
    figure.update_yaxes(title="D (cm²/s)", type="log", exponentformat="power")
    return titled(figure, f"{name}: diffusion", height=400)


def plot_displacements(document: Document) -> go.Figure:
    """
    Draw the mean square displacements of the elements at each temperature.

    Parameters
    ----------
    document
        Fields of a `matris.stores.documents.properties.DiffusionDocument`, with its large fields.

    Returns
    -------
    plotly.graph_objects.Figure
        A panel for each element, Å² against ps: a curve for each temperature, with standard errors and, dashed, the
        line of the coefficient.

    Raises
    ------
    ValueError
        If the document has no displacements.

    Examples
    --------
    >>> document = {
    ...     "formula_pretty": "Li",
    ...     "runs": [{"temperature": 600.0, "diffusion": {}}],
    ...     "displacements": [{"times": [0.0, 10.0], "elements": {"Li": [0.0, 0.02]}}],
    ... }
    >>> [trace.name for trace in plot_displacements(document).data]
    ['Li 600 K']
    """
    name, fields = read(document, "displacements")
    drawn = [
        (run, moved) for run, moved in zip(fields["runs"], fields["displacements"], strict=True) if moved is not None
    ]
    if not drawn:
        raise ValueError(f"{name} has no displacements: the runs have too few frames")
    elements = list(drawn[0][1]["elements"])
    figure = subplots(rows=len(elements), cols=1, shared_xaxes=True, vertical_spacing=0.05)
    for row, element in enumerate(elements, start=1):
        for (run, moved), colour in zip(drawn, cycle(_COLOURS), strict=False):
            label, found = f"{element} {run['temperature']:g} K", run["diffusion"].get(element) or {}
            draw_displacement(figure, moved, element, moved["elements"][element], label, colour, found, row=row, col=1)
        figure.update_yaxes(title=f"MSD of {element} (Å²)", rangemode="tozero", row=row, col=1)
    figure.update_xaxes(title="time (ps)", row=len(elements), col=1)
    return titled(figure, f"{name}: mean square displacement (MSD)", height=100 + 220 * len(elements))


def draw_displacement(
    figure: go.Figure,
    moved: Mapping[str, Any],
    element: str,
    values: Sequence[float],
    label: str,
    colour: str,
    found: Mapping[str, Any],
    **place: int,
) -> None:
    """
    Draw a mean square displacement with its errors and, dashed, the line of its diffusion coefficient.

    Parameters
    ----------
    figure
        Figure to draw into.
    moved
        ``times`` (fs) and ``errors`` (Å²) of a mean square displacement.
    element
        Symbol of the element.
    values
        Mean square displacement, Å².
    label, colour
        Name and colour of the curve.
    found
        Fields of a `matris.stores.documents.properties.DiffusivityDocument`, or empty.
    **place
        Row and column of the panel.
    """
    time = np.asarray(moved["times"], dtype=float) / 1e3
    curve(figure, time, values, label, colour, "%{y:.4f} Å²", **place)
    if errors := moved.get("errors"):
        bars = {"type": "data", "array": errors[element], "thickness": 0.8, "width": 0}
        figure.data[-1].update(error_y=bars)
    if found.get("coefficient") is None:
        return
    first, last = np.asarray(found["window"]) / 1e3
    inside = (time >= first) & (time <= last)
    slope = 6 * found["coefficient"] * 1e4  # Å²/ps
    level = float(np.mean(np.asarray(values)[inside] - slope * time[inside]))
    line = [level + slope * first, level + slope * last]
    curve(figure, np.array([first, last]), line, f"{label}: 6 D t", colour, "%{y:.4f} Å²", **place)
    figure.data[-1].update(line_dash="dash", showlegend=False)


def _draw_dos(figure: go.Figure, frequencies: Floats, densities: Floats, *, imaginary: bool) -> None:
    """Draw a density of states right of the bands, with the frequency on the vertical axis."""
    above, below = split_at_zero(densities, frequencies) if imaginary else ((densities, frequencies), None)
    for part, colour in ((above, ACCENT), (below, BAD)):
        if part is None:
            continue
        figure.add_scatter(
            **_typed(*part),
            mode="lines",
            line={"color": colour, "width": 1.4},
            fill="tozerox",
            name="density of states",
            showlegend=False,
            hovertemplate="%{y:.2f} THz: %{x:.3f}<extra></extra>",
            row=1,
            col=2,
        )


def _typed(x: Floats, y: Floats) -> dict[str, NDArray[np.float32]]:
    """Coordinates of a long line in single precision, which halves the size of the page."""
    return {"x": x.astype(np.float32), "y": y.astype(np.float32)}


def _words(equation: str) -> str:
    """Name of an equation of state in words."""
    return "–".join(word.capitalize() for word in equation.split("_"))
