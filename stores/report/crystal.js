// Draws one crystal on a canvas: atoms, bonds and the cell, from back to front. Mouse, finger or arrow keys rotate it.
"use strict";

(() => {
  const holder = document.getElementById("crystals");
  if (!holder) return;
  const {crystals, elements} = JSON.parse(holder.textContent);
  const canvas = document.getElementById("crystal"), pen = canvas.getContext("2d");
  const names = [...document.querySelectorAll("[data-crystal]")];
  const BOND = 1.2, SIZE = 0.42, DISTANCE = 5, MOST_BONDED = 600;
  let shape = null, turn = null, zoom = 1;

  const dot = (u, v) => u[0] * v[0] + u[1] * v[1] + u[2] * v[2];
  const cross = (u, v) => [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]];
  const unit = u => { const n = Math.sqrt(dot(u, u)) || 1; return u.map(x => x / n); };
  const product = (a, b) => a.map(row => [0, 1, 2].map(k => row[0] * b[0][k] + row[1] * b[1][k] + row[2] * b[2][k]));
  const times = (a, v) => a.map(row => dot(row, v));
  const aboutX = t => [[1, 0, 0], [0, Math.cos(t), -Math.sin(t)], [0, Math.sin(t), Math.cos(t)]];
  const aboutY = t => [[Math.cos(t), 0, Math.sin(t)], [0, 1, 0], [-Math.sin(t), 0, Math.cos(t)]];

  // Rotation matrix of a view along a cell vector; its rows point right, up and towards the viewer.
  function along(lattice, axis) {
    const eye = unit(lattice[axis]), right = unit(cross(lattice[(axis + 2) % 3], eye));
    return [right, cross(eye, right), eye];
  }

  // The conventional cell is drawn, as crystals are known by it; the CIF file has the cell that was computed.
  const shown = crystal => crystal.conventional ?? crystal;

  function build({lattice, sites}) {
    const place = f => [0, 1, 2].map(k => f[0] * lattice[0][k] + f[1] * lattice[1][k] + f[2] * lattice[2][k]);
    const middle = place([0.5, 0.5, 0.5]);
    const centred = f => place(f).map((x, k) => x - middle[k]);
    const atoms = [];
    for (const [symbol, ...f] of sites) {
      const copies = f.map(x => x < 0.01 ? [x, x + 1] : x > 0.99 ? [x - 1, x] : [x]);  // atoms on a face are drawn on both faces
      for (const x of copies[0]) for (const y of copies[1]) for (const z of copies[2])
        atoms.push({at: centred([x, y, z]), ...elements[symbol], symbol});
    }
    const ionic = atoms.some(atom => atom.metal) && atoms.some(atom => !atom.metal);  // then metals do not bond metals
    const bonds = [];
    if (atoms.length <= MOST_BONDED) atoms.forEach((one, i) => {
      for (const other of atoms.slice(i + 1)) {
        if (ionic && one.metal && other.metal) continue;
        const gap = one.at.map((x, k) => x - other.at[k]), reach = BOND * (one.radius + other.radius);
        if (dot(gap, gap) < reach * reach) bonds.push([one, other]);
      }
    });
    const bits = [0, 1], corners = bits.flatMap(x => bits.flatMap(y => bits.map(z => [x, y, z])));
    const edges = [];
    corners.forEach((one, i) => corners.slice(i + 1).forEach(other => {
      if (one.filter((x, k) => x !== other[k]).length === 1) edges.push([centred(one), centred(other)]);
    }));
    const reach = Math.max(...corners.map(f => Math.sqrt(dot(centred(f), centred(f)))));
    return {atoms, bonds, edges, lattice, radius: reach + 0.9};
  }

  function draw() {
    const scale = window.devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
    canvas.width = width * scale;
    canvas.height = height * scale;
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.lineCap = "round";
    const size = zoom * 0.47 * Math.min(width, height) / shape.radius, far = DISTANCE * shape.radius;
    const seen = at => {
      const [x, y, z] = times(turn, at), near = size * far / (far - z);
      return {x: width / 2 + near * x, y: height / 2 - near * y, z, near};
    };
    const between = (u, v, t) => u.map((x, k) => x + t * (v[k] - x));
    const pieces = [];
    const line = (from, to, colour, thick) => {
      const a = seen(from), b = seen(to);
      pieces.push({z: (a.z + b.z) / 2, paint: () => {
        pen.strokeStyle = colour;
        pen.lineWidth = thick * a.near;
        pen.beginPath();
        pen.moveTo(a.x, a.y);
        pen.lineTo(b.x, b.y);
        pen.stroke();
      }});
    };
    const ink = getComputedStyle(canvas).getPropertyValue("--strong");
    for (const [from, to] of shape.edges)
      for (let k = 0; k < 8; k++) line(between(from, to, k / 8), between(from, to, (k + 1) / 8), ink, 0.04);
    for (const [one, other] of shape.bonds) {
      const gap = one.at.map((x, k) => other.at[k] - x), length = Math.sqrt(dot(gap, gap));
      const inside = atom => 0.9 * SIZE * atom.radius / length;  // bonds start at the surface of the atom
      const half = between(one.at, other.at, one.radius / (one.radius + other.radius));
      line(between(one.at, other.at, inside(one)), half, one.colour, 0.16);
      line(half, between(other.at, one.at, inside(other)), other.colour, 0.16);
    }
    for (const atom of shape.atoms) {
      const {x, y, z, near} = seen(atom.at), r = SIZE * atom.radius * near;
      pieces.push({z: z + 0.01, paint: () => {
        const light = pen.createRadialGradient(x - 0.35 * r, y - 0.4 * r, 0.1 * r, x, y, r);
        light.addColorStop(0, "#ffffff");
        light.addColorStop(0.35, atom.colour);
        light.addColorStop(1, `color-mix(in srgb, ${atom.colour} 62%, black)`);
        pen.fillStyle = light;
        pen.beginPath();
        pen.arc(x, y, r, 0, 2 * Math.PI);
        pen.fill();
      }});
    }
    pieces.sort((a, b) => a.z - b.z).forEach(piece => piece.paint());
    [..."abc"].forEach((letter, axis) => {
      const vector = shape.lattice[axis], n = Math.sqrt(dot(vector, vector));
      const corner = shape.edges[0][0], at = seen(corner.map((x, k) => x + vector[k] * (1 + 1.1 / n)));
      pen.fillStyle = ink;
      pen.font = "italic 14px system-ui, sans-serif";
      pen.textAlign = "center";
      pen.textBaseline = "middle";
      pen.fillText(letter, at.x, at.y);
    });
  }

  function legend() {
    const symbols = [...new Set(shape.atoms.map(atom => atom.symbol))];
    document.getElementById("legend").replaceChildren(...symbols.map(symbol => {
      const entry = document.createElement("span"), swatch = document.createElement("i");
      swatch.style.background = elements[symbol].colour;
      entry.append(swatch, symbol);
      return entry;
    }));
  }

  function show(place) {
    shape = {...build(shown(crystals[place])), place};
    turn = product(aboutX(0.3), product(aboutY(-0.45), along(shape.lattice, 0)));
    zoom = 1;
    names.forEach((name, k) => name.setAttribute("aria-selected", String(k === place)));
    document.querySelectorAll(".fact").forEach(fact => { fact.hidden = fact.id !== "fact-" + place; });
    legend();
    draw();
  }

  function rotate(right, down) {
    turn = product(aboutX(down), product(aboutY(right), turn));
    draw();
  }

  // CIF of the relaxed cell without symmetry.
  function cif({name, lattice, sites}) {
    const lengths = lattice.map(v => Math.sqrt(dot(v, v)));
    const angle = (i, j) => 180 / Math.PI * Math.acos(dot(lattice[i], lattice[j]) / lengths[i] / lengths[j]);
    const cell = {length_a: lengths[0], length_b: lengths[1], length_c: lengths[2],
                  angle_alpha: angle(1, 2), angle_beta: angle(0, 2), angle_gamma: angle(0, 1)};
    const counts = {};
    return [
      "data_" + name, ...Object.entries(cell).map(([key, value]) => `_cell_${key} ${value.toFixed(5)}`),
      "_symmetry_space_group_name_H-M 'P 1'", "loop_", "_symmetry_equiv_pos_as_xyz", "'x, y, z'", "loop_",
      "_atom_site_label", "_atom_site_type_symbol", "_atom_site_fract_x", "_atom_site_fract_y", "_atom_site_fract_z",
      ...sites.map(([symbol, ...f]) => {
        counts[symbol] = (counts[symbol] || 0) + 1;
        return `${symbol}${counts[symbol]} ${symbol} ${f.map(x => x.toFixed(5)).join(" ")}`;
      }), "",
    ].join("\n");
  }

  names.forEach((name, place) => name.addEventListener("click", () => show(place)));
  document.querySelector(".names").addEventListener("keydown", event => {
    const step = {ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1}[event.key];
    if (!step) return;
    const place = Math.min(Math.max(shape.place + step, 0), crystals.length - 1);
    show(place);
    names[place].focus();
    event.preventDefault();
  });
  document.querySelectorAll("[data-view]").forEach(button => button.addEventListener("click", () => {
    turn = along(shape.lattice, "abc".indexOf(button.dataset.view));
    draw();
  }));
  document.getElementById("cif").addEventListener("click", () => {
    const crystal = crystals[shape.place], link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([cif(crystal)], {type: "chemical/x-cif"}));
    link.download = crystal.name + ".cif";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
  let last = null;
  canvas.addEventListener("pointerdown", event => {
    last = event;
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", event => {
    if (!last) return;
    rotate((event.clientX - last.clientX) / 120, (event.clientY - last.clientY) / 120);
    last = event;
  });
  ["pointerup", "pointercancel"].forEach(name => canvas.addEventListener(name, () => { last = null; }));
  canvas.addEventListener("keydown", event => {
    const steps = {ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1]};
    if (steps[event.key]) rotate(...steps[event.key]);
    else if (event.key === "+" || event.key === "-") {
      zoom = Math.min(Math.max(zoom * (event.key === "+" ? 1.15 : 1 / 1.15), 0.3), 6);
      draw();
    } else return;
    event.preventDefault();
  });
  new ResizeObserver(draw).observe(canvas);
  show(0);
})();
