// What KDAS compares: P, A(P) and half of S(P) of student and teacher; the weights behind a row.

// The rows of P mixed from its rows, with the weights w = softmax(P P^T / sqrt(W)).
function attended(P) {
  const root = Math.sqrt(P[0].length);
  const w = P.map((a) => softmax(P.map((b) => sum(a.map((v, c) => v * b[c])) / root)));
  return { w, A: w.map((row) => P[0].map((_, c) => sum(row.map((v, r) => v * P[r][c])))) };
}

function symmetric(P) {
  return P.map((row, r) => row.map((v, c) => v + P[c][r]));
}

function logs(map, T) { // log-probabilities over all places
  const z = map.flat().map((v) => v / T), most = Math.max(...z);
  const all = most + Math.log(sum(z.map((v) => Math.exp(v - most))));
  return z.map((v) => v - all);
}

// T^2 KL of A(P_t) from P_s; and the mean square between both S, over that of the teacher's S.
function losses(P_s, { P, A }, { T, scale, square }) {
  const s = logs(P_s, T), kl = sum(logs(A, T).map((t, i) => Math.exp(t) * (t - s[i])));
  const att = Math.max(0, T * T * kl);
  if (!square) return { att, sgm: null };
  const S = symmetric(P_s).flat(), S_t = symmetric(P).flat();
  const apart = mean(S.map((v, i) => (v - S_t[i]) ** 2)), own = mean(S_t.map((v) => v * v));
  return { att, sgm: scale === "raw" ? apart : apart / Math.max(own, 1e-12) };
}

const kept = new WeakMap(); // since a row that moves asks for the same maps again

// A map that was too large comes averaged, with the A and the weights of the full one.
function made(given, square) {
  if (!kept.has(given)) {
    const half = square ? symmetric(given.P).map((row) => row.map((v) => v / 2)) : null;
    kept.set(given, { ...(given.A ? given : attended(given.P)), P: given.P, half });
  }
  return kept.get(given);
}

function numbers(arrays, state) {
  const i = state.image - 1, h = arrays.maps.indexOf(state.map);
  const of = arrays.teachers[state.teacher][h], [student, teacher] =
    [arrays.student[h][i], of.maps[i]].map((given) => {
      const all = made(given, arrays.square);
      return { ...all, w: all.w[Math.min(state.row, all.w.length - 1)] };
    });
  const found = of.losses ? of.losses[i] : losses(student.P, teacher, arrays);
  return { student, teacher, ...found, dice: of.dice ? of.dice[i] : null };
}

function row(square) { // of pictures
  const all = [panel(), panel(), panel(), square ? panel() : null, panel()];
  return { all, box: panels(...all), key: node("div", { class: "legend" }) };
}

// A row of pictures: the image or its mask, the three maps in colours up to `top`, the weights.
function fill({ all: [first, p, a, s, w], key }, who, arrays, state, seen, top) {
  const i = state.image - 1, r = Math.min(state.row, seen.P.length - 1), size = arrays.size;
  const y = (100 * (r + 0.5)) / seen.P.length;
  const look = { stroke: DOTS, "stroke-width": 2, "stroke-dasharray": 3 };
  const dots = () => line(0, y, 100, y, look);
  const map = (title, rows, marks) => {
    const ends = [Math.min(...rows.flat()), Math.max(...rows.flat())].map(short).join(" to ");
    const words = `${title}, ${who}: ${ends}`;
    return { title, rows, stops: POLES, range: [-top, top], marks, words };
  };
  const most = Math.max(...seen.w), at = `most: ${most.toFixed(2)} of row ${seen.w.indexOf(most)}`;
  const [name, image] = who === "student" ? [`image ${state.image}`, arrays.pictures[i]]
    : [`mask of image ${state.image}`, arrays.masks[i]];
  first.show({ title: name, words: name, image, size });
  p.show(map(`P, ${who}`, seen.P, [dots()]));
  a.show(map("A(P)", seen.A, [dots()]));
  s?.show(map("\u00bd S(P)", seen.half));
  w.show({ title: `weights of row ${r}`, image: arrays.pictures[i], size, text: at,
    rows: seen.w.map((v) => [v]), stops: MAGMA, range: [0, 1],
    words: `Weights of row ${r}, ${who}, over the image; ${at}` });
  key.replaceChildren(ramp(POLES, -top, top, `logit, ${who}`), ramp(MAGMA, 0, 1, "weight"));
}

function render({ model, el }) {
  const arrays = model.get("arrays"), teachers = Object.keys(arrays.teachers);
  const last = arrays.student[0][0].P.length - 1;
  const controls = [
    images(model, arrays.masks.length),
    last > 0 && slider(model, "row", "row r", { min: 0, max: last, step: 1, show: String }),
    teachers.length > 1 && choice(model, "teacher", "teacher", teachers),
    arrays.maps.length > 1 && choice(model, "map", "map", arrays.maps),
  ].filter(Boolean);
  const title = node("p", { class: "title" }), rows = [row(arrays.square), row(arrays.square)];
  const parts = [
    node("style", {}, PANELS),
    node("div", { class: "controls" }, controls.map((c) => c.box)),
    title, node("p", { class: "said" }, arrays.note), rows.map((r) => [r.box, r.key]),
  ];
  const draw = (state) => {
    controls.forEach((c) => c.sync(state));
    const now = numbers(arrays, state), h = arrays.maps.indexOf(state.map), { dice } = now;
    const loss = (name, v) => ["L", node("sub", {}, name), ` ${v.toFixed(3)}`];
    title.replaceChildren(...loss("att", now.att), " nats",
      ...(now.sgm === null ? [] : [", ", ...loss("sgm", now.sgm)]),
      dice ? `; Dice: student ${dice[0].toFixed(2)}, teacher ${dice[1].toFixed(2)}` : "");
    const of = { student: arrays.student[h], teacher: arrays.teachers[state.teacher][h].maps };
    Object.keys(of).forEach((who, k) => { // one scale for all images
      const top = Math.max(...of[who].map((m) => Math.max(...m.P.flat().map(Math.abs))));
      fill(rows[k], who, arrays, state, now[who], top || 1);
    });
    el.numbers = now;
  };
  return frame(model, el, "What KDAS compares", parts, draw);
}
