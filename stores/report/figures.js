// Draws a figure when it comes near the window; those in space go again: browsers hold few of them at a time.
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
