// Soft targets, their entropy and the gradient on the student, at a temperature moved by hand.

const GREY = "#808080", OTHER = "#d55e00", STUDENT = "#0072b2", RAISED = "#009e73", LOWERED = "#9f40ff";
const ROW = 17, NAMES = 108, WIDE = 270; // of the drawings, in their own units

// Everything that is shown, for each image: arrays are logits, the state is T, squared, teacher.
function numbers(arrays, { T, squared, teacher }) {
  return arrays.student.map((s, i) => {
    const t = arrays.teachers[teacher][i], p = softmax(t, T), q = softmax(s, T);
    const g = p.map((v, c) => (q[c] - v) * (squared ? T : 1 / T));
    const entropy = p.reduce((sum, v) => sum - (v > 0 ? v * Math.log2(v) : 0), 0);
    return { p, q, g, entropy, length: Math.hypot(...g) };
  });
}

// The class that is set apart: the right one, or where nobody knows it the teacher's answer.
function apart(arrays, state, i) {
  const t = arrays.teachers[state.teacher][i];
  return arrays.truth ? arrays.truth[i] : t.indexOf(Math.max(...t));
}

function ranking(p, own, names, k = 3) {
  const order = p.map((_, c) => c).filter((c) => c !== own).sort((a, b) => p[b] - p[a]);
  return order.slice(0, k).map((c) =>
    `${names[c]} ${p[c] >= 0.001 ? p[c].toFixed(3) : p[c].toExponential(0)}`);
}

function rows(arrays, draw, words) {
  const { classes, names } = arrays;
  const marks = classes.map((c, r) => {
    const y = r * ROW, name = names[c];
    const label = node("text", { x: NAMES - 6, y: y + 12, "text-anchor": "end", "font-size": 10.5 },
      cut(name, 17), node("title", {}, name));
    return [label, draw(c, y)];
  });
  const high = classes.length * ROW;
  return node("svg", { viewBox: `0 0 ${WIDE} ${high + 18}`, role: "img", "aria-label": words }, marks);
}

function below(marks, high) { // numbers under the bars
  return marks.map(([x, words]) => [
    node("line", { x1: x, x2: x, y1: 0, y2: high, stroke: "currentColor", "stroke-opacity": 0.2 }),
    node("text", { x, y: high + 13, "text-anchor": "middle", "font-size": 10 }, words),
  ]).flat();
}

function targets(arrays, seen, own, words) {
  const unit = WIDE - NAMES - 14, high = arrays.classes.length * ROW;
  const drawn = rows(arrays, (c, y) => [
    node("rect", { class: "p", x: NAMES, y: y + 2, height: ROW - 5, width: seen.p[c] * unit,
      fill: c === own ? GREY : OTHER }, node("title", {}, short(seen.p[c]))),
    node("line", { class: "q", x1: NAMES + seen.q[c] * unit, x2: NAMES + seen.q[c] * unit,
      y1: y, y2: y + ROW - 1, stroke: STUDENT, "stroke-width": 3 },
    node("title", {}, short(seen.q[c]))),
  ], words);
  drawn.prepend(...below([[NAMES, "0"], [NAMES + unit / 2, ".5"], [NAMES + unit, "1"]], high));
  return drawn;
}

function gradient(arrays, seen, words) {
  const unit = (WIDE - NAMES - 14) / 2, zero = NAMES + unit, high = arrays.classes.length * ROW;
  const end = arrays.reach, mark = arrays.mark;
  const drawn = rows(arrays, (c, y) => node("rect", {
    class: "g", x: zero + Math.max(-1, Math.min(0, seen.g[c] / end)) * unit, y: y + 2,
    height: ROW - 5, width: Math.min(1, Math.abs(seen.g[c] / end)) * unit, fill: seen.g[c] < 0 ? RAISED : LOWERED,
  }, node("title", {}, short(seen.g[c]))), words);
  const at = (v) => [zero + (v / end) * unit, short(v)];
  drawn.prepend(...below([at(-mark), at(0), at(mark)], high));
  return drawn;
}

function column(arrays, state, seen, i) {
  const own = apart(arrays, state, i), { names, truth } = arrays;
  const of = truth ? `${names[own]}, image ${arrays.numbers[i]}` : `answer ${arrays.numbers[i]}`;
  const most = Math.log2(names.length).toFixed(2);
  const others = ranking(seen.p, own, names);
  return node("div", { style: `grid-row: span ${arrays.images[i] ? 6 : 5}` },
    arrays.images[i] ? node("img", { src: arrays.images[i], alt: of }) : null,
    node("p", {}, node("b", {}, of)),
    node("div", { class: "said" },
      node("div", { class: "entropy" }, `entropy ${seen.entropy.toFixed(2)} of ${most} bits`),
      node("div", {}, `${truth ? "wrong" : "next"} classes: ${others.join(", ")}`)),
    targets(arrays, seen, own, `Soft targets of ${of}: ${others.join(", ")}`),
    node("div", { class: "said" }, `length of the gradient ${short(seen.length)}`),
    gradient(arrays, seen, `Gradient at the student's logits, ${of}`));
}

function render({ model, el }) {
  const arrays = model.get("arrays"), teachers = Object.keys(arrays.teachers);
  const controls = [
    slider(model, "T", "T", {
      min: -1, max: 4.4, step: 0.1, there: Math.log2,
      back: (v) => Number((2 ** v).toPrecision(4)), show: short,
    }),
    tick(model, "squared", "with the factor T\u00b2"),
    ...(teachers.length > 1 ? [choice(model, "teacher", "teacher", teachers)] : []),
  ];
  const title = node("p", { class: "title" }), columns = node("div", { class: "columns" });
  const few = arrays.classes.length < arrays.names.length
    ? `; ${arrays.classes.length} of ${arrays.names.length} classes` : "";
  const parts = [
    node("div", { class: "controls" }, controls.map((c) => c.box)),
    title,
    legend([OTHER, "teacher, p\u1d57(T)"],
      [GREY, arrays.truth ? "the right class" : "its answer"],
      [STUDENT, "student, p\u02e2(T)"],
      [RAISED, "gradient raises the logit"], [LOWERED, "lowers it"]),
    columns,
  ];
  const draw = (state) => {
    controls.forEach((c) => c.sync(state));
    const seen = numbers(arrays, state);
    title.textContent =
      `T = ${short(state.T)}, ${state.squared ? "with" : "without"} the factor T\u00b2${few}`;
    columns.replaceChildren(...seen.map((v, i) => column(arrays, state, v, i)));
    el.numbers = seen;
  };
  return frame(model, el, "Temperature", parts, draw);
}
