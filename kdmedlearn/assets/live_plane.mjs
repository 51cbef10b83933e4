// Small networks of two numbers, drawn over the plane: what they answer everywhere, step by step.

const NARROW = "grid-template-columns: repeat(auto-fit, minmax(min(11em, 45%), 1fr)); max-width: 56em";
const COLOURS = [[86, 180, 233], [230, 159, 0], [0, 158, 115]], FINE = 72;

// The answer of a network with one hidden layer (tanh) at a point.
function answer({ w1, b1, w2, b2 }, x, y) {
  const h = b1.map((b, j) => Math.tanh(b + w1[j][0] * x + w1[j][1] * y));
  return softmax(b2.map((b, c) => w2[c].reduce((sum, v, j) => sum + v * h[j], b)));
}

function grid({ from, to }, fine, f) { // rows from top to bottom
  const at = (i, k) => from[k] + ((i + 0.5) / fine) * (to[k] - from[k]);
  return Array.from({ length: fine }, (_, r) =>
    Array.from({ length: fine }, (_, c) => f(at(c, 0), at(fine - 1 - r, 1))));
}

function numbers(arrays, { frame }) {
  return arrays.panels.map((p) => ({
    accuracy: p.accuracy[Math.min(frame, p.accuracy.length - 1)],
    p: grid(arrays, 8, (x, y) => answer(network(p, frame), x, y)),
  }));
}

function network(panel, frame) { // a teacher has one frame
  return panel.frames[Math.min(frame, panel.frames.length - 1)];
}

function paint(canvas, arrays, net) {
  const drawn = canvas.getContext("2d"), image = drawn.createImageData(FINE, FINE);
  grid(arrays, FINE, (x, y) => answer(net, x, y)).flat().forEach((p, i) => {
    for (let k = 0; k < 3; k++) image.data[4 * i + k] = p.reduce((s, v, c) => s + v * COLOURS[c][k], 0);
    image.data[4 * i + 3] = 255;
  });
  drawn.putImageData(image, 0, 0);
}

function points(arrays, panel) {
  const { from, to } = arrays;
  const x = (v) => (100 * (v - from[0])) / (to[0] - from[0]);
  const y = (v) => 100 - (100 * (v - from[1])) / (to[1] - from[1]);
  const free = panel.unlabelled.map(([a, b]) =>
    node("circle", { cx: x(a), cy: y(b), r: 0.6, fill: "#222", "fill-opacity": 0.5 }));
  const known = panel.labelled.map(([a, b, c]) => node("circle", { cx: x(a), cy: y(b), r: 2,
    fill: `rgb(${COLOURS[c]})`, stroke: "#111", "stroke-width": 0.7 }));
  return node("svg", { viewBox: "0 0 100 100", "aria-hidden": "true", style: "position: absolute; inset: 0" },
    free, known);
}

function render({ model, el }) {
  const arrays = model.get("arrays"), last = arrays.steps.length - 1;
  const at = slider(model, "frame", "step", { min: 0, max: last, step: 1,
    show: (f) => String(arrays.steps[f]) });
  const panels = arrays.panels.map((panel) => {
    const canvas = node("canvas", { width: FINE, height: FINE, role: "img",
      style: "width: 100%; display: block; aspect-ratio: 1" });
    const said = node("p", { class: "said" });
    const box = node("div", { style: "grid-row: span 2" }, said,
      node("div", { style: "position: relative" }, canvas, points(arrays, panel)));
    return { panel, canvas, said, box };
  });
  const parts = [
    node("div", { class: "controls" }, player(model, last), at.box),
    node("div", { class: "columns", style: NARROW }, panels.map((p) => p.box)),
  ];
  const draw = (state) => {
    at.sync(state);
    const now = numbers(arrays, state);
    panels.forEach(({ panel, canvas, said }, i) => {
      paint(canvas, arrays, network(panel, state.frame));
      said.replaceChildren(node("b", {}, panel.name), node("br"),
        `${(100 * now[i].accuracy).toFixed(0)} % right`);
      const right = `${(100 * now[i].accuracy).toFixed(0)} % right`;
      canvas.setAttribute("aria-label", `Answers over the plane, ${panel.name}: ${right}`);
    });
    el.numbers = now;
  };
  return frame(model, el, "Networks over the plane", parts, draw);
}
