// What the viewers of attention share: maps of numbers as pictures, marks on them, words around.

const MAGMA = [[0, 0, 4], [81, 18, 124], [183, 55, 121], [252, 137, 97], [252, 253, 191]];
const POLES = [[5, 48, 97], [67, 147, 195], [247, 247, 247], [214, 96, 77], [103, 0, 31]];
const DOTS = "#009e73", ASKS = "#d55e00";

const PANELS = `
.kdm-live .columns.panels { gap: .8em;
  grid-template-columns: repeat(auto-fit, minmax(max(6.5em, 17%), 1fr)); }
.kdm-live .panels > * { grid-row: span 3; max-width: 15em; }
.kdm-live .panels + .legend { margin-bottom: .6em; }
.kdm-live .panels b { overflow-wrap: anywhere; }
.kdm-live .layers { position: relative; }
.kdm-live .layers > * { position: absolute; inset: 0; width: 100%; height: 100%;
  image-rendering: pixelated; }
.kdm-live .layers > :first-child { position: static; display: block; height: auto; }
.kdm-live .layers text { fill: #fff; stroke: #000; stroke-width: 2.5px; paint-order: stroke; }
.kdm-live .ramp { display: inline-block; width: 8em; height: .7em; margin: 0 .5em; }
.kdm-live .share { height: .5em; background: #0072b2; min-width: 1px; }
`;

function colour(stops, v) { // v from 0 to 1
  const at = Math.min(1, Math.max(0, v)) * (stops.length - 1);
  const i = Math.min(Math.floor(at), stops.length - 2);
  return stops[i].map((a, k) => Math.round(a + (at - i) * (stops[i + 1][k] - a)));
}

function paint(canvas, rows, stops, [low, high]) { // each number one pixel, which is drawn large
  [canvas.width, canvas.height] = [rows[0].length, rows.length];
  const drawn = canvas.getContext("2d");
  const image = drawn.createImageData(canvas.width, canvas.height);
  rows.flat().forEach((v, i) =>
    image.data.set([...colour(stops, (v - low) / (high - low || 1)), 255], 4 * i));
  drawn.putImageData(image, 0, 0);
}

// Words, a picture, words. `show` changes it: an image, a map of numbers, or a map over an image;
// `marks` are drawn on it, in hundredths of its sides.
function panel() {
  const head = node("b"), said = node("div", { class: "said" });
  const img = node("img"), canvas = node("canvas", { role: "img" });
  const drawn = node("svg", { viewBox: "0 0 100 100", preserveAspectRatio: "none",
    "aria-hidden": "true" });
  const layers = node("div", { class: "layers" }), last = {};
  const show = ({ title, text = [], image, size, rows, stops, range, words, marks = [] }) => {
    head.textContent = title;
    said.replaceChildren(...[text].flat());
    drawn.replaceChildren(...marks.flat(Infinity));
    if (image) {
      if (img.getAttribute("src") !== image) img.setAttribute("src", image);
      [img.alt, img.width, img.height] = [words, ...size];
      img.style.filter = rows ? "grayscale(1)" : "";
    }
    if (rows && (rows !== last.rows || range[1] !== last.high)) paint(canvas, rows, stops, range);
    Object.assign(last, { rows, high: range?.[1] });
    canvas.setAttribute("aria-label", words);
    canvas.setAttribute("aria-hidden", Boolean(image)); // the image has the words
    canvas.style.opacity = image ? 0.6 : 1;
    layers.replaceChildren(...[image && img, rows && canvas, drawn].filter(Boolean));
  };
  return { box: node("div", {}, head, layers, said), layers, show };
}

function panels(...all) {
  return node("div", { class: "columns panels" }, all.filter(Boolean).map((p) => p.box));
}

const line = (x1, y1, x2, y2, look) =>
  node("line", { x1, y1, x2, y2, "vector-effect": "non-scaling-stroke", ...look });

function around(x, y, width, height) { // the place that asks
  return node("rect", { x, y, width, height, fill: "none", stroke: ASKS, "stroke-width": 3,
    "vector-effect": "non-scaling-stroke" });
}

// What the colours mean.
function ramp(stops, low, high, words) {
  const colours = stops.map((c) => `rgb(${c})`).join(", ");
  return node("span", {}, short(low),
    node("span", { class: "ramp", style: `background: linear-gradient(90deg, ${colours})` }),
    `${short(high)} ${words}`);
}

function images(model, count) { // the slider that turns them
  return count > 1 && slider(model, "image", "image", { min: 1, max: count, step: 1,
    show: (i) => `${i} of ${count}` });
}

const sum = (of) => of.reduce((a, b) => a + b, 0);
const percent = (v) => `${Math.round(100 * v)} %`;

function mean(of) { // of numbers, or of lists of one shape
  if (!Array.isArray(of[0])) return sum(of) / of.length;
  return of[0].map((_, i) => mean(of.map((v) => v[i])));
}
