// Networks that the page runs itself, on an image that the reader changes.

const INK = ["#808080", "#0072b2", "#d55e00"], WIDE = 420, ROW = 34, NAME = 150, REACH = 210;

function bytes(text) {
  return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
}

// Numbers of 16 bits (IEEE 754), as text.
function halves(text) {
  const view = new DataView(bytes(text).buffer);
  return Float64Array.from({ length: view.byteLength / 2 }, (_, i) => {
    const h = view.getUint16(2 * i, true), e = (h >> 10) & 31, m = (h & 1023) / 1024;
    return (h >> 15 ? -1 : 1) * (e ? 2 ** (e - 15) * (1 + m) : 2 ** -14 * m);
  });
}

function read({ name, layers, head }) {
  const of = ({ w, b, n }) => ({ w: halves(w), b: halves(b), n });
  return { name, layers: layers.map(of), head: of(head) };
}

// 3x3 convolution with a border of zeros, then ReLU: (n, side, side) -> (b.length, side, side).
function convolved(x, side, { w, b, n }) {
  const area = side * side, y = new Float64Array(b.length * area);
  for (let o = 0; o < b.length; o++) {
    const plane = y.subarray(o * area, (o + 1) * area).fill(b[o]);
    for (let k = 0; k < 9 * n; k++) {
      const v = w[9 * n * o + k], dy = (Math.floor(k / 3) % 3) - 1, dx = (k % 3) - 1;
      const from = Math.floor(k / 9) * area + dy * side + dx;
      const right = side - Math.max(0, dx), last = side - Math.max(0, dy);
      for (let r = Math.max(0, -dy); r < last; r++)
        for (let c = Math.max(0, -dx); c < right; c++)
          plane[r * side + c] += v * x[from + r * side + c];
    }
    for (let i = 0; i < area; i++) plane[i] = Math.max(0, plane[i]);
  }
  return y;
}

// The largest of each 2x2: (C, side, side) -> (C, half, half).
function pooled(x, side) {
  const half = Math.floor(side / 2), count = x.length / (side * side);
  const y = new Float64Array(count * half * half);
  for (let c = 0, i = 0; c < count; c++)
    for (let r = 0; r < half; r++)
      for (let k = 0; k < half; k++, i++) {
        const at = (c * side + 2 * r) * side + 2 * k;
        y[i] = Math.max(x[at], x[at + 1], x[at + side], x[at + side + 1]);
      }
  return y;
}

function answer({ layers, head }, image, side) {
  let x = image;
  layers.forEach((layer, i) => {
    x = convolved(x, side, layer);
    if (i < layers.length - 1) x = pooled(x, side), side = Math.floor(side / 2);
  });
  const area = side * side, mean = Array.from({ length: head.n }, (_, c) =>
    x.subarray(c * area, (c + 1) * area).reduce((a, v) => a + v, 0) / area);
  return softmax([...head.b].map((b, k) => mean.reduce((z, v, c) => z + v * head.w[k * head.n + c], b)));
}

// An image (3, side, side) from 0 to 1 as the reader has changed it: light, noise, a square.
function changed(image, noise, side, colour, { light, noise: amount, cover, across, down }) {
  const area = side * side, low = (at) => Math.round(at - cover / 2);
  return Float64Array.from({ length: 3 * area }, (_, i) => {
    const k = Math.floor(i / area), r = Math.floor((i % area) / side), c = i % side;
    const inside = (v, at) => v >= low(at) && v < low(at) + cover;
    if (inside(r, down) && inside(c, across)) return colour[k];
    const at = 3 * (r * side + c) + k;
    const v = (image[at] / 255) * light + amount * (noise[at] / 127.5 - 1);
    return Math.min(1, Math.max(0, v));
  });
}

function paint(canvas, x, side) {
  const drawn = canvas.getContext("2d"), picture = drawn.createImageData(side, side);
  for (let i = 0; i < side * side; i++) {
    for (let k = 0; k < 3; k++) picture.data[4 * i + k] = Math.round(255 * x[k * side * side + i]);
    picture.data[4 * i + 3] = 255;
  }
  drawn.putImageData(picture, 0, 0);
}

function bars(names, truth, nets, answers) {
  const thick = Math.min(11, (ROW - 8) / nets.length);
  const rows = names.map((name, c) => {
    const top = c * ROW + 5;
    const own = answers.map((p, k) => [
      node("rect", { x: NAME, y: top + k * thick, height: thick - 1.5, fill: INK[k % INK.length],
        width: Math.max(0.5, p[c] * REACH) },
      node("title", {}, `${nets[k].name}, ${name}: ${(100 * p[c]).toFixed(1)} %`)),
      node("text", { x: NAME + p[c] * REACH + 5, y: top + (k + 1) * thick - 2.5, "font-size": 10 },
        `${(100 * p[c]).toFixed(0)} %`),
    ]);
    const label = node("text", { x: NAME - 8, y: top + nets.length * thick / 2 + 4,
      "text-anchor": "end", "font-size": 12, "font-weight": c === truth ? 700 : 400 },
    cut(name, 23), node("title", {}, name));
    return [label, own];
  });
  const first = (p) => p.indexOf(Math.max(...p));
  const words = nets.map((n, k) => `${n.name}: ${names[first(answers[k])]}`).join("; ");
  return node("svg", { viewBox: `0 0 ${WIDE} ${names.length * ROW + 4}`, role: "img",
    "aria-label": `Answers, ${words}`, style: "max-width: 34em" }, rows);
}

function render({ model, el }) {
  const arrays = model.get("arrays"), { side, names, truth } = arrays;
  const nets = arrays.nets.map(read), noise = bytes(arrays.noise);
  const images = arrays.images.map(bytes), share = (v) => `${(100 * v).toFixed(0)} %`;
  const mid = (key, label) => slider(model, key, label,
    { min: 0, max: side, step: 1, show: String });
  const controls = [
    slider(model, "image", "image", { min: 1, max: images.length, step: 1,
      show: (v) => `${v} of ${images.length}` }),
    slider(model, "light", "light", { min: 0.3, max: 1.7, step: 0.05, show: share }),
    slider(model, "noise", "noise", { min: 0, max: 0.4, step: 0.01, show: share }),
    slider(model, "cover", "square", { min: 0, max: side / 2, step: 1, show: (v) => `${v} pixels` }),
    mid("across", "square, from the left"), mid("down", "square, from the top"),
  ];
  const canvas = node("canvas", { width: side, height: side, role: "img",
    style: "width: 100%; max-width: 15em; aspect-ratio: 1; image-rendering: pixelated;"
      + " touch-action: none; cursor: crosshair" });
  const put = (e) => {
    const at = canvas.getBoundingClientRect(), now = model.get("state");
    const of = (v, size) => Math.min(side, Math.max(0, Math.round((v / size) * side)));
    change(model, { across: of(e.clientX - at.left, at.width),
      down: of(e.clientY - at.top, at.height), cover: now.cover || Math.round(side / 4) });
  };
  let waits = null; // a hand moves more often than a picture is drawn
  const soon = (e) => {
    if (!waits) requestAnimationFrame(() => { const last = waits; waits = null; put(last); });
    waits = e;
  };
  canvas.addEventListener("pointerdown", (e) => { canvas.setPointerCapture(e.pointerId); put(e); });
  canvas.addEventListener("pointermove", (e) => { if (e.buttons) soon(e); });
  const graph = node("div"), said = node("p", { class: "said" });
  const key = legend(...nets.map((n, k) => [INK[k % INK.length], n.name]));
  const parts = [
    node("div", { class: "columns", style: "max-width: 52em" },
      node("div", {}, node("div", {}, canvas, said)),
      node("div", { style: "max-width: 34em" }, node("div", {}, key, graph))),
    node("div", { class: "controls" }, controls.map((c) => c.box)),
  ];
  const draw = (state) => {
    controls.forEach((c) => c.sync(state));
    const i = state.image - 1, shown = changed(images[i], noise, side, arrays.mean, state);
    paint(canvas, shown, side);
    canvas.setAttribute("aria-label", `Image ${state.image}: ${names[truth[i]]}`);
    const area = side * side, { mean, std } = arrays;
    const x = shown.map((v, j) => (v - mean[Math.floor(j / area)]) / std[Math.floor(j / area)]);
    const answers = nets.map((net) => answer(net, x, side));
    said.replaceChildren("True class: ", node("b", {}, names[truth[i]]),
      ". Drag on the image to cover a part.");
    graph.replaceChildren(bars(names, truth[i], nets, answers));
    el.numbers = answers;
  };
  return frame(model, el, "Students that answer", parts, draw);
}
