// The clinic's page: a bundle's network in the browser. Reading, squeezing and stretching as in
// kdmedlearn.clinic.run; nothing is asked of another host.
const $ = (id) => document.getElementById(id);
const COLOURS = [[230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [0, 114, 178],
  [213, 94, 0], [204, 121, 167]];
let ort, manifest, session, last = Promise.resolve();

// --- files: beside the page or, zipped, in it
const held = $("files") && JSON.parse($("files").textContent);

async function bytesOf(name) {
  if (!held) return (await fetch(name)).arrayBuffer();
  const zipped = Uint8Array.from(atob(held[name]), (c) => c.charCodeAt(0));
  const stream = new Blob([zipped]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

async function addressOf(name, type) {
  if (!held) return new URL(name, location.href).href;
  return URL.createObjectURL(new Blob([await bytesOf(name)], { type }));
}

async function fetched(name) { // a file of the bundle, if it has its hash
  const data = await bytesOf(name);
  if (crypto.subtle) {
    const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", data));
    const hex = Array.from(hash, (b) => b.toString(16).padStart(2, "0")).join("");
    if (hex !== manifest.files[name])
      throw new Error(`${name} is not the file that was written; get it again from whoever made it`);
  }
  return data;
}

async function loaded() { // the runtime
  const found = await import(await addressOf("ort.wasm.min.mjs", "text/javascript"));
  const wasm = "ort-wasm-simd-threaded.wasm";
  found.env.wasm.numThreads = 1; // more threads would need headers that few static servers send
  found.env.wasm.wasmPaths = { mjs: await addressOf("ort-wasm-simd-threaded.mjs", "text/javascript") };
  if (held) found.env.wasm.wasmBinary = await bytesOf(wasm);
  else found.env.wasm.wasmPaths.wasm = await addressOf(wasm);
  return found;
}

// --- Pillow's bilinear resize of bytes: weights of 22 bits, rounded after each direction
export function weights(n, N) {
  const scale = n / N, wide = Math.max(1, scale), out = [];
  for (let i = 0; i < N; i++) {
    const centre = (i + 0.5) * scale;
    const low = Math.max(0, Math.trunc(centre - wide + 0.5));
    const high = Math.min(n, Math.trunc(centre + wide + 0.5));
    const w = [];
    for (let x = low; x < high; x++) w.push(Math.max(0, 1 - Math.abs((x - centre + 0.5) / wide)));
    const sum = w.reduce((a, b) => a + b, 0);
    out.push([low, w.map((v) => Math.trunc(0.5 + (v / sum) * 2 ** 22))]);
  }
  return out;
}

function along(x, n, N, outer, inner) { // (outer, n, inner) -> (outer, N, inner)
  if (n === N) return x;
  const out = new Uint8Array(outer * N * inner), all = weights(n, N);
  for (let o = 0; o < outer; o++)
    for (let i = 0; i < N; i++) {
      const [low, w] = all[i];
      for (let c = 0; c < inner; c++) {
        let sum = 1 << 21;
        for (let k = 0; k < w.length; k++) sum += x[(o * n + low + k) * inner + c] * w[k];
        out[(o * N + i) * inner + c] = Math.min(255, sum >> 22);
      }
    }
  return out;
}

export function squeezed(x, h, w, c, size) { // (h, w, c) bytes -> (size[0], size[1], c)
  return along(along(x, w, size[1], h, c), h, size[0], 1, size[1] * c);
}

function channels(rgba, n) { // RGBA -> RGB, or the grey that Pillow makes of it
  const out = new Uint8Array((rgba.length / 4) * n);
  for (let i = 0, j = 0; i < rgba.length; i += 4) {
    const [r, g, b] = [rgba[i], rgba[i + 1], rgba[i + 2]];
    if (n === 1) out[j++] = (r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16;
    else { out[j++] = r; out[j++] = g; out[j++] = b; }
  }
  return out;
}

async function ask(rgba, h, w) { // -> the graph's answers
  const [H, W] = manifest.size, c = manifest.channels;
  const x = squeezed(channels(rgba, c), h, w, c, [H, W]);
  return session.run({ pixels: new ort.Tensor("uint8", x, [1, H, W, c]) });
}

// --- masks: logits stretched, as torch does with align_corners=False
function between(n, N) {
  return Array.from({ length: N }, (_, i) => {
    const u = Math.max(0, (i + 0.5) * (n / N) - 0.5), low = Math.min(Math.floor(u), n - 1);
    return [low, Math.min(low + 1, n - 1), u - low];
  });
}

function maskOf(tensor, h, w) {
  const [, C, m, n] = tensor.dims, z = tensor.data, ys = between(m, h), xs = between(n, w);
  const mask = new Uint8Array(h * w);
  for (let y = 0; y < h; y++)
    for (let x = 0; x < w; x++) {
      const [a, b, t] = ys[y], [d, e, s] = xs[x];
      let best = C === 1 ? 0 : -Infinity, k = 0;
      for (let c = 0; c < C; c++) {
        const at = (r, q) => z[(c * m + r) * n + q];
        const top = at(a, d) + (at(b, d) - at(a, d)) * t, end = at(a, e) + (at(b, e) - at(a, e)) * t;
        const v = top + (end - top) * s;
        if (v > best) { best = v; k = C === 1 ? 1 : c; }
      }
      mask[y * w + x] = k;
    }
  return mask;
}

// --- files that Python refuses, too; a browser shows 8 bits and the first page of each
const SAVED = "save it as the student's images were saved";

function gifFrames(b) { // images in a GIF
  const table = (flags) => (flags & 0x80 ? 3 * 2 ** ((flags & 7) + 1) : 0);
  let at = 13 + table(b[10]), n = 0;
  while (at < b.length && b[at] !== 0x3b) {
    if (b[at] === 0x2c) { n++; at += 11 + table(b[at + 9]); }
    else at += 2;
    while (b[at]) at += b[at] + 1; // blocks of data
    at++;
  }
  return n;
}

function chunks(b, at, headOf) { // names of the chunks of a PNG or WebP, and where each begins
  const view = new DataView(b.buffer, b.byteOffset, b.length), found = [];
  while (at + 8 <= b.length) {
    const [name, size] = headOf(view, at);
    found.push([name, at]);
    at += size;
  }
  return found;
}

const letters = (b, at) => String.fromCharCode(...b.subarray(at, at + 4));

export function about(b) { // bytes of a file -> pages, and whether it has more than 8 bits
  if (letters(b, 1).startsWith("PNG")) {
    const all = chunks(b, 8, (v, at) => [letters(b, at + 4), v.getUint32(at) + 12]);
    const film = all.find(([name]) => name === "acTL");
    const pages = film ? new DataView(b.buffer, b.byteOffset).getUint32(film[1] + 8) : 1;
    return { pages, deep: b[24] === 16 };
  }
  if (letters(b, 0) === "RIFF" && letters(b, 8) === "WEBP") {
    const even = (n) => n + (n & 1);
    const all = chunks(b, 12, (v, at) => [letters(b, at), even(v.getUint32(at + 4, true)) + 8]);
    return { pages: all.filter(([name]) => name === "ANMF").length || 1, deep: false };
  }
  return { pages: letters(b, 0) === "GIF8" ? gifFrames(b) : 1, deep: false };
}

export function whyNot({ pages, deep }, { window = null, page = null }) { // words, or "" for a file that is answered
  if (page === null && pages > 1)
    return `${pages} pages; save the one that is meant in a file of its own`;
  if (page !== null && page >= pages)
    return `it has no such page as the student's images: ${SAVED}`;
  if (page > 0) return "a browser shows the first page alone; kdmedlearn-predict answers for it";
  if (deep && window === null) return `more than 8 bits; the student knows 8 bits: ${SAVED}`;
  if (deep) return "more than 8 bits, and a browser shows 8 of them; kdmedlearn-predict answers for it";
  if (window !== null)
    return `it has 8 bits, and the student knows more, seen through a window: ${SAVED}`;
  return "";
}

// --- one image
async function pixelsOf(source) { // a file, or a video -> canvas and its pixels
  const how = { colorSpaceConversion: "none", imageOrientation: "from-image" };
  const image = source instanceof Blob ? await createImageBitmap(source, how) : source;
  const canvas = $("view");
  canvas.width = image.videoWidth || image.width;
  canvas.height = image.videoHeight || image.height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#000"; // transparent pixels lie over black
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

async function show(source) {
  const { data, width, height } = await pixelsOf(source);
  const start = performance.now();
  const out = await ask(data, height, width);
  const ms = performance.now() - start;
  let values = Array.from(out.answers.data), words;
  if (out.logits) {
    const mask = maskOf(out.logits, height, width), counts = manifest.classes.map(() => 0);
    for (let i = 0; i < mask.length; i++) {
      counts[mask[i]]++;
      if (mask[i]) for (let c = 0; c < 3; c++)
        data[4 * i + c] += 0.45 * (COLOURS[(mask[i] - 1) % COLOURS.length][c] - data[4 * i + c]);
    }
    $("view").getContext("2d").putImageData(new ImageData(data, width, height), 0, 0);
    values = counts.map((n) => n / mask.length);
    words = "Share of the image";
  } else words = manifest.task === "numbers" ? "Numbers" : "Probability of each class";
  $("said").textContent = `${words}, in ${ms.toFixed(0)} ms.`;
  rows(values);
  window.answer = { values, ms };
  return window.answer;
}

function rows(values) {
  const made = values.map((v, i) => {
    const row = document.createElement("div"), name = document.createElement("span");
    const track = document.createElement("div"), bar = document.createElement("i");
    const number = document.createElement("b");
    row.className = "row"; track.className = "track";
    name.textContent = manifest.classes[i]; // as text: a name is shown and never obeyed
    bar.style.width = `${100 * Math.min(1, Math.max(0, v))}%`;
    number.textContent = v.toFixed(3);
    track.append(bar); row.append(name, track, number);
    return row;
  });
  $("answer").replaceChildren(...made);
}

// --- the self-test: the answers that PyTorch gave
function sampled(tensor, most = 8) {
  if (tensor.dims.length !== 4) return Array.from(tensor.data);
  const [, C, h, w] = tensor.dims, sy = Math.ceil(h / most), sx = Math.ceil(w / most), out = [];
  for (let c = 0; c < C; c++)
    for (let y = 0; y < h; y += sy)
      for (let x = 0; x < w; x += sx) out.push(tensor.data[(c * h + y) * w + x]);
  return out;
}

async function selfTest() {
  let worst = 0;
  for (const [i, name] of manifest.selftest.images.entries()) {
    const blob = new Blob([await fetched(name)], { type: "image/png" });
    const { data, width, height } = await pixelsOf(blob);
    const got = sampled((await ask(data, height, width)).answers);
    const known = manifest.selftest.answers[i];
    if (got.length !== known.length) return Infinity;
    for (const [k, v] of got.entries()) {
      const d = Math.abs(v - known[k]);
      worst = isNaN(d) ? Infinity : Math.max(worst, d);
    }
    sample(blob, i, known);
  }
  return worst;
}

function sample(blob, i, known) {
  const button = document.createElement("button"), image = document.createElement("img");
  const best = known.indexOf(Math.max(...known));
  const said = manifest.task === "classes" ? `known: ${manifest.classes[best]} ${known[best].toFixed(3)}` : "";
  image.src = URL.createObjectURL(blob);
  image.alt = `made-up image ${i + 1}`;
  button.append(image, said);
  button.onclick = () => useFile(blob, true);
  $("samples").append(button);
}

// --- what is asked of it
async function refuse(file) { // what Python refuses; the bundle's own images are as they should be
  const why = whyNot(about(new Uint8Array(await file.arrayBuffer())), manifest);
  if (why) throw new Error(why);
}

async function shown(source, own) {
  try {
    if (source instanceof Blob && !own) await refuse(source);
    await show(source);
  }
  catch (e) {
    window.answer = null;
    $("said").textContent = `This could not be read: ${e.message}`;
    $("answer").replaceChildren();
  }
}

function use(source, own = false) { // one after the other; own: an image of the bundle
  last = last.then(() => shown(source, own));
  return last;
}

function useFile(file, own = false) { // instead of the camera's next image
  stopCamera();
  if (file) use(file, own);
}

function stopCamera() {
  const video = $("video");
  video.srcObject?.getTracks().forEach((t) => t.stop());
  video.srcObject = null;
  $("camera").textContent = "Camera";
}

async function camera() {
  const video = $("video");
  if (video.srcObject) return stopCamera();
  try {
    if (!navigator.mediaDevices) throw new Error("this address is not allowed to ask for one; 127.0.0.1 and https are");
    video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    await video.play();
  } catch (e) { $("said").textContent = `No camera: ${e.message}`; return stopCamera(); }
  $("camera").textContent = "Stop";
  while (video.srcObject) {
    await use(video);
    await new Promise(requestAnimationFrame);
  }
}

function listen() {
  $("file").disabled = false;
  const deep = (manifest.window ?? null) !== null;
  $("camera").disabled = deep; // its images have 8 bits
  if (deep) $("camera").title = "This student knows images of more than 8 bits";
  $("file").onchange = () => useFile($("file").files[0]);
  $("camera").onclick = camera;
  addEventListener("dragover", () => $("drop").classList.add("over"));
  addEventListener("dragleave", () => $("drop").classList.remove("over"));
  addEventListener("drop", (e) => {
    $("drop").classList.remove("over");
    useFile(e.dataTransfer.files[0]);
  });
}

for (const what of ["dragover", "drop"]) // the browser would leave the page for the file
  addEventListener(what, (e) => e.preventDefault());

async function begin() {
  const test = $("test");
  try {
    manifest = JSON.parse(new TextDecoder().decode(await bytesOf("manifest.json")));
    document.title = $("name").textContent = manifest.name;
    $("card").href = await addressOf("card.html", "text/html");
    ort = await loaded();
    session = await ort.InferenceSession.create(await fetched("model.onnx"), { executionProviders: ["wasm"] });
    const worst = await selfTest(), good = worst <= manifest.selftest.tolerance;
    test.className = good ? "good" : "bad";
    test.textContent = good
      ? `Self-test passed: this browser answers as PyTorch did, to ${worst.toExponential(1)}.`
      : `Self-test failed: this browser's answers differ by ${worst.toExponential(1)}. Do not use them; try another browser.`;
    if (good) listen();
  } catch (e) {
    test.className = "bad";
    test.textContent = `The bundle cannot be used: ${e.message}`;
  }
}

begin();
