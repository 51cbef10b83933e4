// One question, some answers; what is said to the one that was chosen.

const RIGHT = "#009e73", WRONG = "#d55e00";

function numbers(arrays, { chosen }) {
  return { right: chosen >= 0 && arrays.answers[chosen].right };
}

function render({ model, el }) {
  const arrays = model.get("arrays"), name = `q${Math.random()}`;
  const reply = node("p", { class: "said", role: "status", "aria-live": "polite" });
  const rows = arrays.answers.map((a, i) => {
    const input = node("input", { type: "radio", name, onkeydown: turned,
      onchange: () => change(model, { chosen: i }) });
    const box = node("label", { style: "display: flex; gap: .5em; margin: .25em 0; align-items: baseline" },
      input, node("span", {}, a.words));
    return { input, box };
  });
  const parts = node("fieldset", { "aria-describedby": name, style: "border: 1px solid #8886; border-radius: .4em; padding: .5em 1em" },
    node("legend", {}, node("span", { class: "said" }, arrays.when)),
    node("p", { id: name }, node("b", {}, arrays.ask)),
    rows.map((r) => r.box), reply);
  const draw = (state) => {
    rows.forEach(({ input }, i) => { input.checked = i === state.chosen; });
    const chosen = arrays.answers[state.chosen];
    reply.textContent = chosen ? `${chosen.right ? "Yes." : "Not quite."} ${chosen.reply}` : "";
    reply.style.borderLeft = chosen ? `4px solid ${chosen.right ? RIGHT : WRONG}` : "";
    reply.style.paddingLeft = chosen ? ".6em" : "";
    el.numbers = numbers(arrays, state);
  };
  return frame(model, el, "A question", [parts], draw);
}
