// A table that sorts: the head of each column is a button.

const TABLE = `
.kdm-live .wide { overflow-x: auto; }
.kdm-live table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 0;
  width: max-content; }
.kdm-live :is(td, th) { padding: .25em .7em; text-align: left; border: 0 solid #8886;
  border-bottom-width: 1px; background: none; color: inherit; white-space: nowrap; }
.kdm-live th { white-space: normal; vertical-align: bottom; max-width: 9em; }
.kdm-live .number { text-align: right; }
.kdm-live tbody tr:hover { background: #8882; }
.kdm-live th button { all: unset; cursor: pointer; font-weight: 600; }
.kdm-live th button:focus-visible { outline: 2px solid #0072b2; outline-offset: 2px; }
`;

// The rows' numbers, sorted by a column; rows without a value stand last either way.
function numbers({ columns, values }, { by, down }) {
  const order = values[0].map((_, i) => i), at = columns.indexOf(by);
  if (at < 0) return order;
  const v = values[at], way = down ? -1 : 1;
  return order.sort((a, b) => {
    if (v[a] === null || v[b] === null) return (v[a] === null) - (v[b] === null) || a - b;
    return v[a] < v[b] ? -way : v[a] > v[b] ? way : a - b;
  });
}

function render({ model, el }) {
  const arrays = model.get("arrays"), { columns, texts, numeric, caption } = arrays;
  const look = (k) => ({ class: numeric[k] ? "number" : null });
  const heads = columns.map((name, k) => {
    const button = node("button", { type: "button", onclick() {
      const { by, down } = model.get("state");
      change(model, { by: name, down: by === name ? !down : numeric[k] }); // numbers: largest first
    } }, name);
    return { name, button, box: node("th", { scope: "col", ...look(k) }, button) };
  });
  const body = node("tbody");
  const rows = texts[0].map((_, i) => node("tr", {}, texts.map((t, k) => node("td", look(k), t[i]))));
  const table = node("table", {}, caption ? node("caption", {}, caption) : null,
    node("thead", {}, node("tr", {}, heads.map((h) => h.box))), body);
  const parts = [node("style", {}, TABLE),
    node("div", { class: "wide", tabindex: 0, role: "region", "aria-label": caption || "table" },
      table)];
  const draw = (state) => {
    heads.forEach(({ name, button, box }) => {
      const mine = state.by === name;
      box.setAttribute("aria-sort", !mine ? "none" : state.down ? "descending" : "ascending");
      button.textContent = name + (mine ? (state.down ? " \u25be" : " \u25b4") : "");
    });
    el.numbers = numbers(arrays, state);
    body.replaceChildren(...el.numbers.map((i) => rows[i]));
  };
  return frame(model, el, caption || "Table", parts, draw);
}
