// Selects a hull; sorts and filters tables.
"use strict";

const systems = document.getElementById("systems");
if (systems) {
  const show = () => document.querySelectorAll(".hull").forEach(hull => { hull.hidden = hull.id !== systems.value; });
  systems.addEventListener("change", show);
  show();
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
