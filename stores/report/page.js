// Selects a hull; sorts and filters tables.
"use strict";

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
  head.tabIndex = 0;
  head.addEventListener("keydown", event => { if (event.key === "Enter") head.click(); });
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
