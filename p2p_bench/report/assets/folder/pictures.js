// Pictures, cards of edits, film strips over tau and the worst edits of each metric.
const pictureOf = (row, kind) => row.pictures[data.pictures.indexOf(kind)];

function thumb(number, alt, open) {
  const file = number == null ? null : thumbs[number];
  if (!file) return h("span", { class: "no-picture" }, "no picture");
  const image = h("img", { src: "thumbs/" + file[0], alt, loading: "lazy", decoding: "async", width: 96, height: 96 });
  return open ? h("button", { type: "button", class: "picture", onclick: open }, image) : image;
}

const promptSpan = (segments, kind) => h("span", { class: "prompt " + kind }, segments.map(([part, changed]) => (changed ? h("mark", {}, part) : part)));
const sampleHead = (sample) => h("p", { class: "tags" }, sample[2] ? h("span", { class: "tag" }, sample[2]) : null,
  h("span", { class: "mono" }, sample[0] + (sample[1] ? " · target " + (sample[1] + 1) : "")));

function cardScores(row, names) {
  return h("dl", { class: "card-scores" }, names.map((name) => h("div", {}, h("dt", {}, metricOf(name).short + " " + arrow(metricOf(name))), h("dd", {}, format(scoreOf(row, name))))));
}

// One edit: source and edit side by side. `list` is what the viewer's arrow keys go through.
function editCard(row, names, list) {
  const sample = data.samples[row.sample], entry = data.entries[row.entry], open = () => openViewer(row, list);
  return h("article", { class: "card edit", "data-row": rowName(row) },
    h("div", { class: "pair" }, thumb(pictureOf(row, "source"), "source: " + promptText(sample[3]), open), row.error == null
      ? thumb(pictureOf(row, "target"), "edit: " + promptText(sample[4]), open) : h("p", { class: "reason" }, h("b", {}, "failed"), " ", row.error)),
    h("p", { class: "entry-name", title: entry.name }, entrySwatch(row.entry), entry.name), promptSpan(sample[4], "to"), cardScores(row, names), sampleHead(sample));
}

const rowName = (row) => row.entry + ":" + row.sample;

// A list that is drawn a few at a time while its end is near the window.
const pending = { queue: [], draw: null, target: null };
function drawList(target, items, draw) {
  Object.assign(pending, { queue: [...items], draw, target });
  target.replaceChildren();
  target.append(...pending.queue.splice(0, 12).map(draw));
  fill();
}

function fill() {
  while (pending.queue.length && !pending.target.closest("section").hidden && $("more").getBoundingClientRect().top < window.innerHeight * 2) {
    pending.target.append(...pending.queue.splice(0, 12).map(pending.draw));
  }
}

function drawStrips() {
  const curves = data.methods.filter((method) => method.entries.length > 1);
  options($("method"), curves.map((method) => [method.name, method.name]), state.method);
  const method = curves.find((one) => one.name === state.method);
  $("strips-note").textContent = !method ? "No two runs differ in tau alone, so there is no strip to show."
    : !loaded() ? "Loading the rows …" : "Source, then the edit at each tau (cross/self), from the freest to the most faithful. The tau with the best " + metricOf(state.x).title + " and the best " + metricOf(state.y).title + " is marked.";
  if (!method || !loaded()) return $("strips").replaceChildren();
  const bySample = new Map();
  for (const i of method.entries) for (const row of rowsOf.get(i) || []) if (inCategory(row)) bySample.set(row.sample, [...(bySample.get(row.sample) || []), row]);
  const pictured = [...bySample.values()].filter((strip) => strip.some((row) => pictureOf(row, "target") != null));
  if (!pictured.length) $("strips-note").textContent = "These runs kept no pictures.";
  drawList($("strips"), pictured, (strip) => stripCard(strip));
}

function stripCard(strip) {
  const sample = data.samples[strip[0].sample], source = strip.find((row) => pictureOf(row, "source") != null);
  const best = (name) => { const [first, second] = sortRows(strip, name, "best"); return first && scoreOf(first, name) != null && (!second || scoreOf(first, name) !== scoreOf(second, name)) ? first : null; };
  const marks = [[state.x, best(state.x)], [state.y, best(state.y)]];
  return h("article", { class: "card strip" }, h("div", { class: "strip-head" }, sampleHead(sample), promptSpan(sample[3], "from"), " → ", promptSpan(sample[4], "to")),
    h("div", { class: "scroll film", tabindex: 0, role: "region", "aria-label": "film strip of " + sample[0] },
      h("figure", {}, thumb(source ? pictureOf(source, "source") : null, "source", source ? () => openViewer(source, strip) : null), h("figcaption", {}, "source")),
      strip.map((row) => h("figure", {}, row.error == null ? thumb(pictureOf(row, "target"), "tau " + data.entries[row.entry].tauText, () => openViewer(row, strip)) : h("p", { class: "reason" }, h("b", {}, "failed")),
        h("figcaption", {}, h("b", {}, data.entries[row.entry].tauText), h("span", {}, format(scoreOf(row, state.x)) + " · " + format(scoreOf(row, state.y))),
          marks.filter(([, one]) => one === row).map(([name]) => h("span", { class: "best-key" }, { editability: "most changed", fidelity: "most kept" }[metricOf(name).role] || "best")))))));
}

function drawWorst() {
  $("k").value = state.k;
  const metrics = measured.filter((metric) => metric.main && metric.higher != null && metric.role !== "cost");
  if (!loaded()) return $("worst").replaceChildren(h("p", { class: "note" }, "Loading the rows …"));
  const chosen = new Set(shown()), k = Math.max(1, Number(state.k) || 6);
  const list = rows.filter((row) => chosen.has(row.entry) && row.error == null && inCategory(row));
  $("worst").replaceChildren(...metrics.map((metric) => {
    const worst = sortRows(list.filter((row) => scoreOf(row, metric.name) != null), metric.name, "worst").slice(0, k);
    return h("div", { class: "worst-row", "data-metric": metric.name }, h("h3", {}, metric.title + " " + arrow(metric), " ", backbone(metric)),
      worst.length ? h("div", { class: "cards" }, worst.map((row) => editCard(row, [metric.name], worst))) : h("p", { class: "note" }, "No edit here has a value."));
  }));
}
