// A training as a film: accuracy up to a frame, and the student's answers at it beside the teacher's.

const STUDENT = "#0072b2", TEACHER = "#d55e00", GREY = "#808080";
const ROW = 17, NAMES = 108, WIDE = 270, HIGH = 150, LEFT = 38;

// The take that agrees with most of what is chosen and contradicts least of it.
function take(arrays, state) {
  const agrees = (t) => Object.entries(t.settings)
    .reduce((sum, [k, v]) => sum + (String(v) === String(state[k]) ? 1 : -1), 0);
  return arrays.takes.reduce((best, t) => (agrees(t) > agrees(best) ? t : best));
}

function numbers(arrays, state) {
  const chosen = take(arrays, state), f = state.frame;
  return { step: arrays.steps[f], accuracy: chosen.accuracy[f], p: chosen.logits[f].map((z) => softmax(z)) };
}

// The takes that differ from the chosen one in the first setting alone: the lines of the figure.
function lines(arrays, state) {
  const [first] = Object.keys(arrays.settings);
  return arrays.settings[first].map((v) => [v, take(arrays, { ...state, [first]: v })]);
}

function curves(arrays, state, long) { // long: of the drawing, in the page's own pixels
  const all = arrays.takes.flatMap((t) => t.accuracy);
  const low = Math.min(0.75, Math.floor(4 * Math.min(...all, arrays.teacher_accuracy ?? 1)) / 4);
  const last = arrays.steps.at(-1) || 1;
  const x = (step) => LEFT + (step / last) * (long - LEFT - 10);
  const y = (v) => 8 + (1 - (v - low) / (1 - low)) * (HIGH - 30);
  const [first] = Object.keys(arrays.settings), drawn = [];
  for (let v = low; v <= 1.001; v += 0.25) {
    drawn.push(node("line", { x1: LEFT, x2: long - 10, y1: y(v), y2: y(v), stroke: "currentColor",
      "stroke-opacity": 0.15 }), node("text", { x: LEFT - 5, y: y(v) + 3, "text-anchor": "end",
      "font-size": 11 }, `${Math.round(100 * v)} %`));
  }
  for (const s of [0, Math.round(last / 2), last]) {
    drawn.push(node("text", { x: x(s), y: HIGH - 5, "font-size": 11,
      "text-anchor": s === last ? "end" : s ? "middle" : "start" }, `step ${s}`));
  }
  const way = (a) => a.map((v, f) => `${f ? "L" : "M"}${x(arrays.steps[f])},${y(v)}`).join("");
  lines(arrays, state).forEach(([name, t]) => {
    const on = String(name) === String(state[first]);
    drawn.push(node("path", { d: way(t.accuracy), fill: "none", stroke: on ? STUDENT : GREY,
      "stroke-width": on ? 2.5 : 1.2, "stroke-opacity": on ? 1 : 0.7 }, node("title", {}, name)));
  });
  if (arrays.teacher_accuracy !== null) {
    const at = y(arrays.teacher_accuracy);
    drawn.push(node("line", { x1: LEFT, x2: long - 10, y1: at, y2: at, stroke: TEACHER,
      "stroke-dasharray": "5 4" }, node("title", {}, "teacher")));
  }
  const now = numbers(arrays, state), at = x(now.step);
  drawn.push(node("line", { x1: at, x2: at, y1: 4, y2: HIGH - 20, stroke: "currentColor",
    "stroke-opacity": 0.5 }), node("circle", { cx: at, cy: y(now.accuracy), r: 4, fill: STUDENT }));
  return node("svg", { viewBox: `0 0 ${long} ${HIGH}`, role: "img", style: `max-width: ${long}px`,
    "aria-label": `Accuracy over the steps; ${(100 * now.accuracy).toFixed(1)} % at this one` }, drawn);
}

function answers(arrays, p, i) {
  const { names } = arrays, t = softmax(arrays.teacher[i]), unit = WIDE - NAMES - 14;
  const own = arrays.truth[i], of = `${names[own]}, image ${i}`;
  const drawn = names.map((name, c) => {
    const y = c * ROW, at = NAMES + t[c] * unit;
    return [
      node("text", { x: NAMES - 6, y: y + 12, "text-anchor": "end", "font-size": 10.5,
        "font-weight": c === own ? "bold" : null }, cut(name, c === own ? 15 : 17), node("title", {}, name)),
      node("rect", { class: "p", x: NAMES, y: y + 2, height: ROW - 5, width: p[c] * unit,
        fill: STUDENT, "fill-opacity": 0.8 }, node("title", {}, short(p[c]))),
      node("line", { class: "t", x1: at, x2: at, y1: y, y2: y + ROW - 1, stroke: TEACHER,
        "stroke-width": 3 }, node("title", {}, short(t[c]))),
    ];
  });
  const right = p.indexOf(Math.max(...p)) === own;
  return node("div", { style: "grid-row: span 3" },
    node("img", { src: arrays.images[i], alt: of }),
    node("p", { class: "said" }, `${names[own]}: ${right ? "found" : "missed"}`),
    node("svg", { viewBox: `0 0 ${WIDE} ${names.length * ROW + 4}`, role: "img",
      "aria-label": `Answers for ${of}, ${right ? "right" : "wrong"}` }, drawn));
}

function render({ model, el }) {
  const arrays = model.get("arrays"), last = arrays.steps.length - 1;
  const controls = Object.entries(arrays.settings).filter(([, v]) => v.length > 1)
    .map(([k, values]) => choice(model, k, k, values));
  const at = slider(model, "frame", "step", { min: 0, max: last, step: 1,
    show: (f) => String(arrays.steps[f]) });
  const title = node("p", { class: "title" }), graph = node("div");
  const columns = node("div", { class: "columns" });
  const parts = [
    node("div", { class: "controls" }, controls.map((c) => c.box)),
    node("div", { class: "controls" }, player(model, last), at.box),
    title,
    legend([STUDENT, "this student"], [GREY, "the others"], [TEACHER, "teacher"]),
    graph, columns,
  ];
  const draw = (state) => {
    [...controls, at].forEach((c) => c.sync(state));
    const now = numbers(arrays, state), { settings } = take(arrays, state);
    const words = Object.entries(settings).map(([k, v], i) => (i ? `${k} ${v}` : v)).join(", ");
    title.textContent = `${words}: `
      + `${(100 * now.accuracy).toFixed(1)} % of the test images after ${now.step} steps`;
    const long = Math.min(560, Math.max(280, graph.clientWidth || 520));
    graph.replaceChildren(curves(arrays, state, long));
    columns.replaceChildren(...now.p.map((p, i) => answers(arrays, p, i)));
    el.numbers = now;
  };
  return frame(model, el, "A training as a film", parts, draw);
}
