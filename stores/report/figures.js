// Draws a figure when it scrolls into view, in the colours of the mode and in a shape that fits its width, and moves
// its labels apart. 3D figures are removed when out of view: browsers limit WebGL contexts.
"use strict";

(() => {
  const palette = JSON.parse(document.getElementById("palette")?.textContent || "{}");
  const NARROW = 560, PANEL = 250, GAP = 3, OFF = [14, 20, 28, 36];
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const figures = [...document.querySelectorAll(".figure")];
  const drawings = new Map();
  let printing = false;

  // Figures are written in the colours of the light mode; page.css has the dark colours by name.
  function figureOf(div) {
    const text = document.getElementById(div.id + "-data").textContent;
    if (!dark.matches || printing) return JSON.parse(text);
    const style = getComputedStyle(document.documentElement);
    const painted = colour => palette[colour] ? style.getPropertyValue(palette[colour]).trim() : colour;
    return JSON.parse(text.replace(/#[0-9a-f]{6}/g, painted));
  }

  // Puts panels that lie beside each other below each other.
  function stack(layout, panels) {
    for (let n = 0; n < panels; n++) {
      const place = n ? String(n + 1) : "", x = layout["xaxis" + place], y = layout["yaxis" + place];
      x.domain = [0, 1];
      y.domain = [1 - (n + 0.82) / panels, 1 - n / panels];
      x.anchor = "y" + place;
      y.anchor = "x" + place;
      x.showticklabels = true;
      if (n < panels - 1) delete x.title;
    }
  }

  // One drawing of a figure after the other.
  function draw(div) {
    delete div.dataset.arranged;
    drawings.set(div, (drawings.get(div) ?? Promise.resolve()).then(() => drawNow(div)));
  }

  async function drawNow(div) {
    if (!div.clientWidth) return;
    const {data, layout} = figureOf(div), narrow = div.clientWidth < NARROW, panels = layout.meta?.panels;
    const height = Number(div.dataset.height);
    if (narrow && panels) stack(layout, panels);
    const square = layout.scene || layout.ternary, fitting = square ? Math.min(height, div.clientWidth + 20) : height;
    div.style.height = (narrow && panels ? PANEL * panels : fitting) + "px";
    div.dataset.drawn = narrow ? "narrow" : "wide";
    await Plotly.react(div, data, layout, {responsive: true, displaylogo: false});
    await arrange(div);
    if (!div.dataset.watched) {
      div.dataset.watched = "yes";
      div.on("plotly_relayout", change => { if (change["scene.camera"]) arrange(div); });
    }
    div.dataset.arranged = "yes";
  }

  const box = element => element.getBoundingClientRect();
  const collide = (a, b) => a.left < b.right + GAP && b.left < a.right + GAP && a.top < b.bottom && b.top < a.bottom;
  const within = (a, b) => a.left >= b.left && a.right <= b.right && a.top >= b.top && a.bottom <= b.bottom;

  // Labels of a figure: what draws each one, and how to put it at its n-th place or to hide it.
  function labelsOf(div) {
    const annotations = div.layout.scene?.annotations;
    if (annotations) {
      const places = OFF.flatMap(far => [[0, -far], [0, far], [far + 8, 0], [-far - 8, 0], [far, -far], [-far, -far]]);
      return {
        labels: annotations.map((_, n) => n), n: places.length,
        element: n => div.querySelector(`.annotation-scene[data-index="${n}"] .annotation-text`),
        put: async changes => {
          await Plotly.relayout(div, Object.assign({}, ...changes.map(([n, place]) => {
            const at = `scene.annotations[${n}].`;
            return place < 0 ? {[at + "visible"]: false}
              : {[at + "visible"]: true, [at + "xshift"]: places[place][0], [at + "yshift"]: -places[place][1]};
          })));
          for (let frame = 0; frame < 2; frame++) await new Promise(requestAnimationFrame);  // a scene draws in the next one
        },
      };
    }
    const places = ["top center", "bottom center", "middle right", "middle left", "top right", "top left",
                    "bottom right", "bottom left"];
    const labels = div.data.flatMap((trace, t) => (trace.mode || "").includes("text") && trace.meta !== "fixed"
      ? trace.text.flatMap((text, n) => text ? [{t, n, text}] : []) : []);
    return {
      labels, n: places.length,
      element: label => textsOf(div, label.t).find(text => text.__data__.i === label.n),
      put: changes => {
        const traces = [...new Set(changes.map(([label]) => label.t))];
        for (const [{t, n, text}, place] of changes) {
          const trace = div.data[t];
          if (!Array.isArray(trace.textposition)) trace.textposition = trace.text.map(() => places[0]);
          trace.text[n] = place < 0 ? "" : text;
          trace.textposition[n] = places[Math.max(place, 0)];
        }
        return Plotly.restyle(div, {text: traces.map(t => div.data[t].text),
                                    textposition: traces.map(t => div.data[t].textposition)}, traces);
      },
    };
  }

  function textsOf(div, t) {
    const uid = div._fullData[t].uid;
    return [...div.querySelectorAll(`.trace${uid} .textpoint`)];
  }

  // Puts each label at the first place where it meets no other text and is inside the figure, or hides it.
  async function arrange(div) {
    const {labels, n, element, put} = labelsOf(div);
    if (!labels.length) return;
    const frame = box(div);
    await put(labels.map(label => [label, 0]));
    const own = new Set(labels.map(element));
    const texts = [...div.querySelectorAll("svg text")].filter(text => ![...own].some(g => g?.contains(text)));
    const taken = texts.map(box).filter(b => b.width);
    let left = labels;
    for (let place = 0; left.length && place < n; place++) {
      if (place) await put(left.map(label => [label, place]));
      left = left.filter(label => {
        const drawn = element(label), at = drawn && box(drawn);
        if (!at || !at.width || !within(at, frame) || taken.some(other => collide(at, other))) return true;
        taken.push(at);
        return false;
      });
    }
    if (left.length) await put(left.map(label => [label, -1]));
  }

  const seen = new IntersectionObserver(entries => entries.forEach(({target, isIntersecting}) => {
    if (isIntersecting && !target.dataset.drawn) draw(target);
    else if (!isIntersecting && target.dataset.drawn && target.layout?.scene) {
      Plotly.purge(target);
      ["drawn", "watched", "arranged"].forEach(name => delete target.dataset[name]);
    }
  }), {rootMargin: "400px"});
  figures.forEach(div => seen.observe(div));

  const drawn = () => figures.filter(div => div.dataset.drawn);
  new ResizeObserver(() => drawn().forEach(div => {
    if (div.clientWidth && (div.clientWidth < NARROW) !== (div.dataset.drawn === "narrow")) draw(div);
  })).observe(document.body);
  dark.addEventListener("change", () => drawn().forEach(draw));
  ["beforeprint", "afterprint"].forEach(name => addEventListener(name, () => {
    printing = name === "beforeprint";
    if (dark.matches) drawn().forEach(draw);
  }));
})();
