// Whom a fusion of teachers believes: the weights of its tokens for one another, by head.

const MATRIX = `
.kdm-live .matrix { display: grid; gap: .2em .5em; max-width: 30em; margin: .3em 0;
  grid-template-columns: minmax(0, 10em) minmax(0, 1fr); }
.kdm-live .across { grid-column: 2; display: flex; }
.kdm-live .across > * { flex: 1; text-align: center; }
.kdm-live .down { display: grid; grid-auto-rows: minmax(0, 1fr); align-items: center; }
.kdm-live .down > * { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
`;

// What image number i, from 0, shows: all weights of the chosen head, (K n, K n), each row with
// sum 1; and what the query, or the mean of all, gives to each teacher's places.
function told(arrays, { head, query }, i) {
  const heads = arrays.attention[i], h = arrays.heads.indexOf(head);
  const matrix = h ? heads[h - 1] : mean(heads), n = matrix.length / arrays.names.length;
  const weights = query < 0 ? mean(matrix) : matrix[query];
  const maps = arrays.names.map((_, k) => weights.slice(k * n, (k + 1) * n));
  return { matrix, maps, shares: maps.map(sum) };
}

function numbers(arrays, state) {
  return told(arrays, state, state.image - 1);
}

function token(arrays, query, side) {
  if (query < 0) return "mean of all queries";
  const at = query % side ** 2;
  const place = side > 1 ? `, row ${Math.floor(at / side) + 1}, column ${(at % side) + 1}` : "";
  return arrays.names[Math.floor(query / side ** 2)] + place;
}

// On a teacher's map: the weights in words, where there are few, and the place that asks.
function places(map, side, asks) {
  const step = 100 / side, at = (j) => [(j % side) * step, Math.floor(j / side) * step];
  const words = side > 3 ? [] : map.map((v, j) => node("text", { x: at(j)[0] + step / 2,
    y: at(j)[1] + step / 2 + 4, "text-anchor": "middle", "font-size": side > 2 ? 9 : 12 },
  percent(v)));
  return [words, asks < 0 ? [] : around(at(asks)[0] + 1, at(asks)[1] + 1, step - 2, step - 2)];
}

// On the matrix: the borders between teachers, and the row that asks.
function borders(K, tokens, query) {
  const look = { stroke: "#aaa" };
  const at = Array.from({ length: K - 1 }, (_, k) => (100 * (k + 1)) / K);
  return [at.map((v) => [line(v, 0, v, 100, look), line(0, v, 100, v, look)]),
    query < 0 ? [] : around(0, (100 * query) / tokens, 100, 100 / tokens)];
}

function render({ model, el }) {
  const arrays = model.get("arrays"), { names } = arrays;
  const tokens = arrays.attention[0][0].length, n = tokens / names.length, side = Math.sqrt(n);
  const controls = [
    images(model, arrays.truth.length),
    choice(model, "head", "head", arrays.heads),
    slider(model, "query", "query", { min: -1, max: tokens - 1, step: 1,
      show: (q) => (q < 0 ? "mean of all" : `${q + 1} of ${tokens}`) }), // its name: in the title
  ].filter(Boolean);
  const numbered = names.map((name, k) => `${k + 1} ${name}`);
  const title = node("p", { class: "title" }), key = node("div", { class: "legend" });
  const seen = arrays.pictures.length ? panel() : null, each = names.map(panel), all = panel();
  const parts = [
    node("style", {}, PANELS + MATRIX),
    node("div", { class: "controls" }, controls.map((c) => c.box)),
    title, panels(seen, ...each),
    node("p", { class: "said" }, "All weights: a row for each token that asks, a column for each"
      + ` token that is weighted, teacher by teacher. ${arrays.note}`),
    node("div", { class: "matrix" },
      node("div", { class: "across", "aria-hidden": "true" },
        names.map((_, k) => node("span", {}, String(k + 1)))),
      node("div", { class: "down" }, numbered.map((w) => node("span", { title: w }, w))),
      all.layers),
    key,
  ];
  const draw = (state) => {
    controls.forEach((c) => c.sync(state));
    const every = arrays.truth.map((_, j) => told(arrays, state, j)); // one scale for all images
    const most = (k) => Math.max(...every.map((v) => Math.max(...v[k].flat())));
    const now = every[state.image - 1], i = state.image - 1, { query, head } = state;
    const name = `image ${state.image}: ${arrays.truth[i]}`;
    title.replaceChildren(node("b", {}, name), node("br"), arrays.fused[i], node("br"),
      `weights: ${head}; ${query < 0 ? "" : "query "}${token(arrays, query, side)}`);
    seen?.show({ title: "image", image: arrays.pictures[i], size: arrays.size, words: name });
    each.forEach((p, k) => p.show({
      title: numbered[k], stops: MAGMA, range: [0, most("maps")],
      rows: Array.from({ length: side }, (_, r) => now.maps[k].slice(r * side, (r + 1) * side)),
      marks: places(now.maps[k], side, Math.floor(query / n) === k ? query % n : -1),
      words: `${names[k]} gets ${percent(now.shares[k])}: ${now.maps[k].map(short).join(", ")}`,
      text: [node("div", { class: "share", style: `width: ${100 * now.shares[k]}%` }),
        `${percent(now.shares[k])} of the weight`, node("br"), `says ${arrays.says[i][k]}`],
    }));
    const shares = names.map((name, k) => `${name} ${percent(now.shares[k])}`).join(", ");
    all.show({ rows: now.matrix, stops: MAGMA, range: [0, most("matrix")],
      marks: borders(names.length, tokens, query),
      words: `${tokens} x ${tokens} weights, ${head}; by teacher: ${shares}` });
    key.replaceChildren(ramp(MAGMA, 0, most("maps"), "weight, in the maps of the teachers"),
      ramp(MAGMA, 0, most("matrix"), "among all weights"));
    el.numbers = now;
  };
  return frame(model, el, "Attention of a fusion", parts, draw);
}
