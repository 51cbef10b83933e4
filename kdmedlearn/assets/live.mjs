// What the live widgets share: nodes, controls, colours, and a model for a page without a kernel.
// kdmedlearn/viz/live.py puts this text before a widget's own, which defines `render`.

const DRAWN = new Set(["svg", "g", "rect", "line", "path", "text", "circle", "title", "image"]);

// An HTML or SVG node. Words come as children, so a name is never read as markup.
function node(tag, attributes = {}, ...children) {
  const made = DRAWN.has(tag)
    ? document.createElementNS("http://www.w3.org/2000/svg", tag)
    : document.createElement(tag);
  for (const [k, v] of Object.entries(attributes)) {
    if (v === null || v === undefined || v === false) continue;
    if (k.startsWith("on")) made.addEventListener(k.slice(2), v);
    else made.setAttribute(k, v === true ? "" : v);
  }
  made.append(...children.flat(Infinity).filter((c) => c !== null && c !== undefined));
  return made;
}

const LOOK = `
.kdm-live { color: var(--jp-ui-font-color1, inherit); font-size: 14px; line-height: 1.45;
  max-width: 60em; padding: 2px; }
.kdm-live * { box-sizing: border-box; }
.kdm-live p { margin: .3em 0; }
.kdm-live .controls { display: flex; flex-wrap: wrap; gap: .3em 1.4em; margin: .2em 0 .5em; }
.kdm-live .controls label { display: flex; align-items: center; gap: .5em; min-height: 2em; }
.kdm-live input[type=range] { width: min(15em, 45vw); accent-color: #0072b2; margin: 0; }
.kdm-live output { min-width: 3em; font-variant-numeric: tabular-nums; }
.kdm-live select { max-width: 60vw; font: inherit; }
.kdm-live button { font: inherit; min-width: 5em; }
.kdm-live .columns { display: grid; gap: .8em 1.6em;
  grid-template-columns: repeat(auto-fit, minmax(min(15em, 100%), 1fr)); }
.kdm-live .columns > * { max-width: 24em; min-width: 0; display: grid; gap: .2em;
  grid-template-rows: subgrid; align-items: start; }
.kdm-live .said { font-size: .93em; overflow-wrap: anywhere; }
.kdm-live svg { display: block; width: 100%; height: auto; overflow: visible; background: none; }
.kdm-live svg text { fill: currentColor; font-family: inherit; }
.kdm-live img { display: block; width: 96px; height: 96px; image-rendering: auto;
  background: none !important; padding: 0 !important; }
.kdm-live .key { display: inline-block; width: .8em; height: .8em; margin: 0 .35em 0 0; }
.kdm-live .legend { display: flex; flex-wrap: wrap; gap: .1em 1.2em; font-size: .93em; }
`;

// A model as a notebook's kernel gives one, for a page that has none.
function still(arrays, state) {
  const kept = { arrays, state }, heard = [];
  return {
    get: (name) => kept[name],
    set(name, value) { kept[name] = value; heard.forEach((f) => f()); },
    save_changes() {},
    on(_, f) { heard.push(f); },
    off(_, f) { if (heard.includes(f)) heard.splice(heard.indexOf(f), 1); },
  };
}

// The frame of a widget: `parts` are laid out once; `draw(state)` runs at every change of it.
function frame(model, el, name, parts, draw) {
  const box = node("div", { class: "kdm-live", role: "group", "aria-label": name, },
    node("style", {}, LOOK), parts);
  el.replaceChildren(box);
  const again = () => draw(model.get("state"));
  model.on("change:state", again);
  again();
  return () => model.off("change:state", again);
}

function change(model, values) {
  model.set("state", { ...model.get("state"), ...values });
  model.save_changes();
}

// JupyterLab takes the arrow keys for its cells, so no control can wait for what the browser does.
const KEYS = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 10, PageDown: -10,
  Home: -Infinity, End: Infinity };

function moved(e) {
  const steps = KEYS[e.key], { min, max, step } = e.target;
  if (steps === undefined || e.altKey || e.ctrlKey || e.metaKey) return;
  e.preventDefault();
  const value = Number(e.target.value) + steps * Number(step);
  e.target.value = Math.min(max, Math.max(min, value));
  e.target.dispatchEvent(new Event("input"));
}

// The same for radio buttons of one name and for the options of a list.
function turned(e) {
  const steps = KEYS[e.key], way = Math.sign(steps ?? 0) * (e.key.startsWith("Arrow") ? 1 : 0);
  if (!way || e.altKey || e.ctrlKey || e.metaKey) return;
  e.preventDefault();
  const down = e.key === "ArrowUp" || e.key === "ArrowLeft" ? -1 : 1; // a list grows downwards
  const box = e.target, all = box.tagName === "SELECT" ? [...box.options]
    : [...box.closest("fieldset").querySelectorAll("input[type=radio]")];
  const now = box.tagName === "SELECT" ? box.selectedIndex : all.indexOf(box);
  const next = Math.min(all.length - 1, Math.max(0, now + down));
  if (next === now) return;
  if (box.tagName === "SELECT") box.selectedIndex = next;
  else all[next].focus(), all[next].checked = true;
  (box.tagName === "SELECT" ? box : all[next]).dispatchEvent(new Event("change"));
}

// Controls know how to show a state that was set elsewhere: `sync(state)`.
function slider(model, key, label, { min, max, step, there = (v) => v, back = (v) => v, show }) {
  const said = node("output", { "aria-live": "off" }); // a film would read out every frame
  const input = node("input", {
    type: "range", min, max, step, "aria-label": label,
    oninput: () => change(model, { [key]: back(Number(input.value)) }), onkeydown: moved,
  });
  const sync = (state) => {
    input.value = there(state[key]);
    said.textContent = show(state[key]);
    input.setAttribute("aria-valuetext", said.textContent);
  };
  return { box: node("label", {}, label, input, said), sync };
}

function tick(model, key, label) {
  const input = node("input", {
    type: "checkbox", onchange: () => change(model, { [key]: input.checked }),
  });
  const sync = (state) => { input.checked = state[key]; };
  return { box: node("label", {}, input, label), sync };
}

function choice(model, key, label, names) {
  const input = node("select", {
    "aria-label": label, onchange: () => change(model, { [key]: input.value }), onkeydown: turned,
  }, names.map((n) => node("option", { value: n }, n)));
  const sync = (state) => { input.value = state[key]; };
  return { box: node("label", {}, label, input), sync };
}

// Plays to the end, ten frames a second; a second press stops it.
function player(model, last) {
  let timer = null;
  const stop = () => { clearInterval(timer); timer = null; button.textContent = "play"; };
  const on = () => {
    const frame = model.get("state").frame;
    if (frame >= last || !button.isConnected) stop();
    else change(model, { frame: frame + 1 });
  };
  const button = node("button", { type: "button", onclick() {
    if (timer) return stop();
    if (model.get("state").frame >= last) change(model, { frame: 0 });
    button.textContent = "stop";
    timer = setInterval(on, 100);
  } }, "play");
  return button;
}

function legend(...entries) { // [colour, words]
  return node("div", { class: "legend" }, entries.map(([colour, words]) =>
    node("span", {}, node("span", { class: "key", style: `background: ${colour}` }), words)));
}

// At most three digits, as people write them.
function short(v) {
  const text = Math.abs(v) >= 0.001 || v === 0 ? String(Number(v.toPrecision(3))) : v.toExponential(0);
  return text.replace("-", "\u2212");
}

function cut(words, most) {
  return words.length <= most ? words : words.slice(0, most - 1) + "\u2026";
}

function softmax(z, T = 1) {
  const most = Math.max(...z), e = z.map((v) => Math.exp((v - most) / T));
  const sum = e.reduce((a, b) => a + b, 0);
  return e.map((v) => v / sum);
}
