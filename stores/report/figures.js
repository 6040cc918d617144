// Draws a figure when it scrolls into view. 3D figures are removed when out of view: browsers limit WebGL contexts.
"use strict";

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
