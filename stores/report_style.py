"""Looks and behaviour of the HTML report: one style sheet and one short script, both inlined."""

from __future__ import annotations

STYLE = """
:root { --ink: #1b2733; --soft: #5b6b7a; --line: #dfe5ea; --paper: #ffffff; --ground: #f5f7f9;
        --accent: #0b6e75; --good: #1a7f4b; --warn: #a15c00; --bad: #b3261e; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
       font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 36px 24px 60px; }
h1 { font-size: 28px; line-height: 1.2; margin: 0 0 6px; letter-spacing: -0.01em; }
h2 { font-size: 18px; margin: 0 0 14px; }
p { margin: 0 0 10px; }
.lead { color: var(--soft); margin-bottom: 26px; }
section { background: var(--paper); border: 1px solid var(--line); border-radius: 10px; padding: 22px 24px;
          margin-bottom: 20px; }
.note { color: var(--soft); font-size: 13.5px; }
.badge { display: inline-block; padding: 1px 9px; border-radius: 999px; font-size: 12.5px; font-weight: 600;
         background: #fff1dc; color: var(--warn); vertical-align: 2px; }
.funnel { display: grid; grid-template-columns: max-content 1fr max-content; gap: 7px 14px; align-items: center; }
.funnel .track { background: var(--ground); border-radius: 5px; height: 20px; }
.funnel .bar { background: var(--accent); border-radius: 5px; height: 20px; min-width: 2px; }
.funnel .bar.good { background: var(--good); }
.funnel .count { font-variant-numeric: tabular-nums; font-weight: 600; text-align: right; }
.funnel .lost { grid-column: 2 / 4; color: var(--bad); font-size: 13.5px; margin: -4px 0 2px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { text-align: left; padding: 6px 12px 6px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--soft); font-weight: 600; font-size: 12.5px; line-height: 1.3; vertical-align: bottom; }
table.sortable th { cursor: pointer; user-select: none; }
table.sortable th:hover { color: var(--accent); }
th[aria-sort="ascending"]::after { content: " \\25B2"; font-size: 9px; }
th[aria-sort="descending"]::after { content: " \\25BC"; font-size: 9px; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap;
                       padding-right: 18px; }
td.formula { font-weight: 600; }
table.narrow { width: auto; }
td.formula sub, .formula sub { font-weight: 400; }
tr.stable td:first-child { box-shadow: inset 3px 0 0 var(--good); }
td:first-child, th:first-child { padding-left: 10px; }
.state-failed, .state-rejected { color: var(--bad); }
.state-max_steps { color: var(--warn); }
.source { color: var(--soft); overflow-wrap: anywhere; min-width: 120px; }
.over { text-decoration: overline; }
.mono { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: 12.5px;
        overflow-wrap: anywhere; }
a { color: var(--accent); }
.bar-top { display: flex; gap: 12px; align-items: center; flex-wrap: wrap; margin-bottom: 12px; }
select, input { font: inherit; padding: 5px 9px; border: 1px solid var(--line); border-radius: 7px; color: inherit;
                background: var(--paper); }
.plot { width: 100%; height: 560px; }
.plot[hidden] { display: none; }
.figure { width: 100%; margin-top: 14px; }
.warning { color: var(--warn); }
h2 .source { font-weight: 400; font-size: 13.5px; margin-left: 10px; }
details summary { cursor: pointer; color: var(--accent); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 5px 22px; margin: 0; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
@media print { body { background: none; } section { break-inside: avoid; border: none; padding: 10px 0; } }
"""

SCRIPT = """
function drawHull(id) {
  document.querySelectorAll(".plot").forEach(div => { div.hidden = div.id !== id; });
  const div = document.getElementById(id);
  if (!div || div.dataset.drawn) return;
  const figure = JSON.parse(document.getElementById(id + "-data").textContent);
  Plotly.newPlot(div, figure.data, figure.layout, {responsive: true, displaylogo: false});
  div.dataset.drawn = "yes";
}
const systems = document.getElementById("systems");
if (systems) {
  systems.addEventListener("change", () => drawHull(systems.value));
  drawHull(systems.value);
}
document.querySelectorAll("table.sortable th").forEach(head => {
  head.addEventListener("click", () => {
    const column = head.cellIndex, table = head.closest("table"), body = table.tBodies[0];
    const up = head.getAttribute("aria-sort") !== "ascending";
    table.querySelectorAll("th").forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const value = row => { const cell = row.cells[column]; return cell.dataset.value ?? cell.textContent; };
    const rows = [...body.rows].sort((a, b) => {
      const x = value(a), y = value(b);
      if (x === "" || y === "") return (x === "") - (y === "");
      const order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
      return up ? order : -order;
    });
    body.append(...rows);
  });
});
const filter = document.getElementById("filter");
if (filter) filter.addEventListener("input", () => {
  const wanted = filter.value.trim().toLowerCase();
  filter.closest("section").querySelectorAll("tbody tr").forEach(row => {
    row.hidden = !row.textContent.toLowerCase().includes(wanted);
  });
});
"""

FIGURES = """
const drawn = new IntersectionObserver(entries => entries.forEach(({target, isIntersecting}) => {
  if (isIntersecting && !target.dataset.drawn) {
    const figure = JSON.parse(document.getElementById(target.id + "-data").textContent);
    Plotly.newPlot(target, figure.data, figure.layout, {responsive: true, displaylogo: false});
    target.dataset.drawn = figure.layout.scene ? "in space" : "flat";
  } else if (!isIntersecting && target.dataset.drawn === "in space") {
    Plotly.purge(target);
    delete target.dataset.drawn;
  }
}), {rootMargin: "400px"});
document.querySelectorAll(".figure").forEach(div => drawn.observe(div));
"""
"""Draws a figure when it comes near the window; those in space go again: browsers hold few of them at a time."""
