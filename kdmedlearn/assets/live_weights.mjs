// The terms of a loss on one batch, under weights moved by hand: from their values and the inner
// products of their gradients, which no weight changes.

const HEARD = "#0072b2", ALONE = "#808080", WITH = [0, 114, 178], AGAINST = [213, 94, 0];

function numbers(arrays, state) {
  const w = arrays.names.map((n) => state[n]), K = w.length, { gram, values } = arrays;
  const rows = [...w.map((_, i) => w.map((_, j) => Number(i === j))), w]; // the total is the last
  const dot = (a, b) => a.reduce((s, u, i) => s + u * b.reduce((t, v, j) => t + v * gram[i][j], 0), 0);
  const all = rows.map((a) => rows.map((b) => dot(a, b)));
  const length = all.map((r, i) => Math.sqrt(Math.max(0, r[i])));
  const total = w.reduce((s, v, i) => s + v * values[i], 0);
  return {
    total, length,
    shares: w.map((v, i) => (total ? (v * values[i]) / total : 0)),
    heard: [...w.map((v, i) => v * length[i]), length[K]],
    cos: all.map((r, i) => r.map((v, j) => {
      const both = length[i] * length[j];
      return both > 0 ? Math.max(-1, Math.min(1, v / both)) : null;
    })),
  };
}

function bar(share, colour, words) {
  const wide = 70 * Math.max(0, Math.min(1, share));
  return node("div", { style: "display: flex; align-items: center; gap: .4em; line-height: 1.2" },
    node("div", { style: `flex: none; width: ${0.85 * wide}%; height: .8em; background: ${colour}` }),
    node("span", { class: "said", style: "white-space: nowrap" }, words));
}

function shade(c) { // orange against, blue with
  if (c === null) return "transparent";
  return `rgba(${(c < 0 ? AGAINST : WITH).join(", ")}, ${0.75 * Math.abs(c)})`;
}

function table(arrays, state, now) {
  const names = [...arrays.names, "total"], most = Math.max(...now.heard, ...now.length, 1e-12);
  const cell = (how, ...inside) => node("td", { style: `padding: .2em .5em; ${how}` }, ...inside);
  const head = ["", "share of the total", "length of the gradient", ...names];
  const rows = names.map((name, i) => node("tr", {},
    node("th", { scope: "row", style: "text-align: left; padding-right: .6em" }, name),
    cell("min-width: 11em", i < arrays.names.length
      ? bar(now.shares[i], HEARD, `${short(state[name])} \u00d7 ${short(arrays.values[i])}`)
      : bar(1, HEARD, short(now.total))),
    cell("min-width: 11em", bar(now.heard[i] / most, HEARD, short(now.heard[i])),
      i < arrays.names.length ? bar(now.length[i] / most, ALONE, short(now.length[i])) : null),
    now.cos[i].map((c) => cell(`text-align: center; background: ${shade(c)}`,
      c === null ? "\u2013" : c.toFixed(2).replace("-", "\u2212")))));
  return node("table", { style: "border-collapse: collapse; border: 0" },
    node("thead", {}, node("tr", {}, head.map((h) =>
      node("th", { scope: "col", style: "text-align: left; padding: .2em .5em" }, h)))),
    node("tbody", {}, rows));
}

// In words: who pulls against whom, and whom a step along the total makes worse.
function quarrels({ names }, { cos }) {
  const K = names.length, said = [];
  for (let i = 0; i < K; i++) {
    for (let j = 0; j < i; j++) {
      const c = cos[i][j];
      if (c < 0) {
        const how = c > -0.1 ? "slightly " : "";
        said.push(`${names[j]} and ${names[i]} pull ${how}against each other (cosine ${c.toFixed(2)})`);
      }
    }
    if (cos[i][K] < 0) said.push(`a step along the total makes ${names[i]} worse (cosine ${cos[i][K].toFixed(2)})`);
  }
  return said.length ? said : ["no two terms pull against each other on this batch"];
}

function render({ model, el }) {
  const arrays = model.get("arrays");
  const controls = arrays.names.map((n, i) => slider(model, n, `weight of ${n}`, {
    min: 0, max: arrays.most[i], step: arrays.most[i] / 100, show: short,
    back: (v) => Number(v.toPrecision(4)),
  }));
  const title = node("p", { class: "title" }), said = node("p", { class: "said" });
  const drawn = node("div", { style: "overflow-x: auto", tabindex: 0, role: "region",
    "aria-label": "terms, gradients and cosines" });
  const parts = [
    node("div", { class: "controls" }, controls.map((c) => c.box)),
    title, said, legend([HEARD, "times its weight"], [ALONE, "alone"]), drawn,
  ];
  const draw = (state) => {
    controls.forEach((c) => c.sync(state));
    const now = numbers(arrays, state);
    const none = arrays.names.every((n) => state[n] === 0);
    title.textContent = none ? `${arrays.head}: all weights are 0, so nothing is learned`
      : `${arrays.head}: weighted total ${short(now.total)}`;
    said.textContent = `${quarrels(arrays, now).join("; ")}.`;
    drawn.replaceChildren(table(arrays, state, now));
    el.numbers = now;
  };
  return frame(model, el, "Loss weights", parts, draw);
}
