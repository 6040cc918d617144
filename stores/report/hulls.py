"""Section of the convex hulls: pictures of small chemical systems, and a table of all."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from matris.stores.report.assets import data_script
from matris.stores.report.hull_figure import hull_figure
from matris.stores.report.hull_points import drawable_systems, inside
from matris.stores.report.parts import formula_html, number, number_cell, plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matris.stores.report.hull_points import HullPoint
    from matris.stores.report.tally import System, Tally

MAX_PLOTS = 60
MAX_SYSTEMS = 500

_FIGURE_POINTS = 1500


def hulls(tally: Tally, references: Sequence[HullPoint] | None) -> tuple[str, bool]:
    """
    Draw the hulls of chemical systems of two to four elements, and list all systems.

    Parameters
    ----------
    tally
        All documents counted.
    references
        Phases that make up the hull in place of the candidates.

    Returns
    -------
    section, drawn
        The section, and whether it holds figures.
    """
    phases = tally.phases
    systems = drawable_systems({system: len(points) for system, points in phases.items()})
    known = None if references is None else _by_system(references)
    options, plots = [], []
    for place, system in enumerate(systems[:MAX_PLOTS]):
        name = f"hull-{place}"
        options.append(f'<option value="{name}">{escape("–".join(system))}</option>')
        shown = sorted(inside(phases, system), key=lambda point: point.above_hull or 0)[:_FIGURE_POINTS]
        figure = hull_figure(system, shown, None if known is None else inside(known, system))
        plots.append(f'<div class="plot" id="{name}" hidden></div>{data_script(f"{name}-data", figure)}')
    told = [_sentence(tally)]
    if not systems:
        told.append("No chemical system of two to four elements has a hull to draw.")
    if len(systems) > MAX_PLOTS:
        told.append(f"{number(len(systems) - MAX_PLOTS)} further chemical systems are not drawn.")
    if any(len(points) == tally.phase_limit for points in phases.values()):
        told.append(f"Of each chemical system, the {tally.phase_limit} phases nearest to the hull are drawn.")
    choice = f'<label>Chemical system <select id="systems">{"".join(options)}</select></label>' if systems else ""
    notes = "".join(f'<p class="note">{escape(text)}</p>' for text in told)
    content = f'<div class="bar-top">{choice}</div>{"".join(plots)}{notes}{_table(tally)}'
    return f'<section id="hulls"><h2>Convex hull</h2>{content}</section>', bool(plots)


def _by_system(points: Sequence[HullPoint]) -> dict[str, list[HullPoint]]:
    found: dict[str, list[HullPoint]] = {}
    for point in points:
        found.setdefault("-".join(sorted(point.composition)), []).append(point)
    return found


def _sentence(tally: Tally) -> str:
    """Say which hull the numbers refer to."""
    sets = sorted(tally.hulls)
    told = "; ".join(f"{hull_type} ({name})" if name else hull_type for hull_type, name in sets)
    return f"Hull: {told}. Lines join phases that coexist on it." if told else "No candidate has a hull distance."


def _table(tally: Tally) -> str:
    """List chemical systems with most to be found in them first."""

    def height(item: tuple[str, System]) -> float:
        return item[1].best[0] if item[1].best else float("inf")

    listed = sorted(tally.systems.items(), key=lambda item: (-item[1].survivors, height(item), item[0]))
    if not listed:
        return ""
    rows = "".join(_row(*item) for item in listed[:MAX_SYSTEMS])
    more = len(listed) - MAX_SYSTEMS
    note = f'<p class="note">{number(more)} further systems have fewer survivors.</p>' if more > 0 else ""
    heads = ("Candidates", "Relaxed", "In the window", "On the hull", "Nearest<br>meV/atom")
    heading = "".join(f'<th class="number">{text}</th>' for text in heads)
    return (
        f"<details{' open' if not tally.points else ''}><summary>{plural(len(listed), 'chemical system')}</summary>"
        f'<div class="scroll tall"><table class="sortable"><thead><tr><th>System</th>{heading}<th>Phase</th></tr>'
        f"</thead><tbody>{rows}</tbody></table></div>{note}</details>"
    )


def _row(name: str, system: System) -> str:
    counts = (system.candidates, system.converged, system.survivors, system.stable)
    numbers = "".join(f'<td class="number" data-value="{count}">{number(count)}</td>' for count in counts)
    best = number_cell(1e3 * system.best[0] if system.best else None, 1)
    phase = formula_html(system.best[1]) if system.best else ""
    return f'<tr><td>{escape(name.replace("-", "–"))}</td>{numbers}{best}<td class="formula">{phase}</td></tr>'
