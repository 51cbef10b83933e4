// Channel and spatial weights of the blocks of a model, image by image, beside their means.

const BAR = "#0072b2", MEAN = "#d55e00", LONG = 520, HIGH = 150, LEFT = 30;

// Share of the variance of maps, over images and places, that their mean map explains.
function fixedShare(maps) {
  const spread = (z) => { const m = mean(z); return mean(z.map((v) => (v - m) ** 2)); };
  return spread(mean(maps).flat()) / Math.max(spread(maps.flat(2)), 1e-20);
}

// A map that was too large comes averaged, with the share and the lowest and highest weight of the
// full ones.
function numbers(arrays, { image, block, order }) {
  const i = image - 1, spatial = arrays.spatial[block], place = spatial[i], all = place.flat();
  const mine = arrays.channel[block][i], usual = mean(arrays.channel[block]);
  const by = order === "the mean" ? usual : mine, full = arrays.full[block];
  const ranked = by.map((_, c) => c).sort((a, b) => by[b] - by[a]);
  return {
    place, placeMean: mean(spatial), share: full ? full.share : fixedShare(spatial),
    low: full ? full.low[i] : Math.min(...all), high: full ? full.high[i] : Math.max(...all),
    ranked, channel: ranked.map((c) => mine[c]), channelMean: ranked.map((c) => usual[c]),
  };
}

function bars({ ranked, channel, channelMean }, words) {
  const wide = (LONG - LEFT) / ranked.length, y = (v) => 6 + (1 - v) * (HIGH - 26);
  const write = (x, at, text, side) =>
    node("text", { x, y: at, "text-anchor": side, "font-size": 12 }, text);
  const drawn = [0, 0.5, 1].map((v) => [
    line(LEFT, y(v), LONG, y(v), { stroke: "currentColor", "stroke-opacity": 0.2 }),
    write(LEFT - 5, y(v) + 4, String(v), "end"),
  ]);
  ranked.forEach((c, k) => {
    const x = LEFT + k * wide, r = Math.min(3, Math.max(1.2, wide / 3));
    drawn.push(node("rect", { x: x + 0.05 * wide, y: y(channel[k]), width: 0.9 * wide, fill: BAR,
      height: y(0) - y(channel[k]) }, node("title", {}, `channel ${c}: ${short(channel[k])}`)));
    drawn.push(node("circle", { cx: x + wide / 2, cy: y(channelMean[k]), r, fill: MEAN },
      node("title", {}, `channel ${c}: mean ${short(channelMean[k])}`)));
  });
  drawn.push(write(LEFT, HIGH - 4, "rank 1", "start"),
    ranked.length > 1 ? write(LONG, HIGH - 4, `rank ${ranked.length}`, "end") : []);
  return node("svg", { viewBox: `0 0 ${LONG} ${HIGH}`, role: "img", "aria-label": words,
    style: "max-width: 46em" }, drawn);
}

function render({ model, el }) {
  const arrays = model.get("arrays"), count = arrays.titles.length;
  const blocks = Object.keys(arrays.channel);
  const controls = [
    images(model, count),
    blocks.length > 1 && choice(model, "block", "block", blocks),
    choice(model, "order", "order by", arrays.orders),
  ].filter(Boolean);
  const seen = panel(), mine = panel(), usual = panel(), title = node("p", { class: "title" });
  const graph = node("div"), of = `mean of ${count} image${count > 1 ? "s" : ""}`;
  const parts = [
    node("style", {}, PANELS),
    node("div", { class: "controls" }, controls.map((c) => c.box)),
    panels(seen, mine, usual),
    node("div", { class: "legend" }, ramp(MAGMA, 0, 1, "weight of a place")),
    title, legend([BAR, "this image"], [MEAN, of]), graph,
  ];
  const draw = (state) => {
    controls.forEach((c) => c.sync(state));
    const now = numbers(arrays, state), i = state.image - 1, image = arrays.pictures[i];
    const name = `image ${state.image}${arrays.titles[i] && `: ${arrays.titles[i]}`}`;
    const ends = `${now.low.toFixed(2)} to ${now.high.toFixed(2)}, ${arrays.places[state.block]}`;
    const share = `explains ${percent(now.share)} of the variance`, { size } = arrays;
    seen.show({ title: name, image, size, words: name });
    mine.show({ title: "weights of the places", image, size, rows: now.place, stops: MAGMA,
      range: [0, 1], text: ends, words: `Weights of the places, ${name}: ${ends}` });
    usual.show({ title: of, rows: now.placeMean, stops: MAGMA, range: [0, 1], text: share,
      words: `Weights of the places, ${of}: ${share}` });
    const [first, last] = [now.ranked.slice(0, 4), now.ranked.slice(-3)].map((c) => c.join(", "));
    const channels = `${state.block}: weights of ${now.ranked.length} channels`;
    title.replaceChildren(node("b", {}, channels), `, by rank; first ${first}, last ${last}`);
    const [low, high] = [Math.min(...now.channel), Math.max(...now.channel)].map(short);
    graph.replaceChildren(bars(now, `${channels}, ${name}: ${low} to ${high}; first ${first}`));
    el.numbers = now;
  };
  return frame(model, el, "Attention of a block", parts, draw);
}
