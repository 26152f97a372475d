// The gallery: a card per sample with its variants side by side, drawn a few at a time.
const BATCH = 8;
let queue = [];

const scoreOf = (edit, name) => (edit.failed ? null : edit.scores[metricIndex.get(name)]);
const text = (segments) => segments.map((segment) => segment[0]).join("");

function sampleValue(sample, metric, shown) {
  let value = null;
  for (const edit of sample.edits) {
    const score = shown.has(edit.variant) ? scoreOf(edit, metric.name) : null;
    if (score == null) continue;
    const wins = value == null || (better(metric, score, value) === (state.order === "best") && score !== value);
    if (wins) value = score;
  }
  return value;
}

// Samples that match, in order. Samples without a value of the metric come last, whichever the order.
function chosenSamples() {
  const shown = new Set(visible());
  const words = state.q.toLowerCase().split(/\s+/).filter(Boolean);
  const found = data.samples.filter((sample) => {
    if (state.category && sample.category !== state.category) return false;
    if (!sample.edits.some((edit) => shown.has(edit.variant))) return false;
    const all = [sample.id, sample.category, text(sample.source), text(sample.target)].join(" ").toLowerCase();
    return words.every((word) => all.includes(word));
  });
  const metric = state.sort ? data.metrics[metricIndex.get(state.sort)] : null;
  if (!metric) return found;
  const values = new Map(found.map((sample) => [sample, sampleValue(sample, metric, shown)]));
  const sign = (metric.higher === false ? 1 : -1) * (state.order === "best" ? 1 : -1);
  const rank = (value) => (value == null ? Infinity : sign * value);
  return found.sort((a, b) => { const p = rank(values.get(a)), q = rank(values.get(b)); return p === q ? 0 : p < q ? -1 : 1; });
}

function picture(number, alt, open) {
  if (number == null) return h("span", { class: "no-picture" }, "–");
  const [uri, link, note] = data.pictures[number];
  if (!uri) return link ? h("a", { class: "no-picture", href: link }, note) : h("span", { class: "no-picture", title: note }, note);
  const image = h("img", { src: uri, alt, loading: "lazy", decoding: "async", width: 128, height: 128 });
  return open ? h("button", { type: "button", class: "picture", onclick: open }, image) : image;
}

const prompt = (segments, kind) => h("span", { class: "prompt " + kind }, segments.map(([part, changed]) => (changed ? h("mark", {}, part) : part)));

function prompts(sample) {
  return h("div", { class: "prompts" },
    h("p", {}, h("span", { class: "role" }, "source"), prompt(sample.source, "from")),
    h("p", {}, h("span", { class: "role" }, "target"), prompt(sample.target, "to")));
}

const scoreRows = () => scored.filter((metric) => metric.main || metric.name === state.sort);
const sortedClass = (metric) => (metric.name === state.sort ? " sorted" : "");

// The names of the scores stand once, beside the source; each variant's list says them to screen readers only.
function scoreNames() {
  return h("ul", { class: "scores names", "aria-hidden": "true" }, scoreRows().map((metric) =>
    h("li", { class: sortedClass(metric), title: named(metric, metric.title) },
      h("span", {}, metric.short), h("span", { class: "arrow" }, arrow(metric)))));
}

function scores(edit, shownEdits) {
  return h("ul", { class: "scores" }, scoreRows().map((metric) => {
    const value = scoreOf(edit, metric.name);
    const best = format(value) === bestOf(metric, shownEdits.map((other) => scoreOf(other, metric.name)));
    return h("li", { class: (best ? "best" : "") + sortedClass(metric), title: named(metric, metric.title) },
      h("span", { class: "unseen" }, metric.title + " "), format(value));
  }));
}

function column(sample, edit, shownEdits, firstSource, kept) {
  const name = data.variants[edit.variant].name;
  const head = h("div", { class: "column-head", title: name }, swatch(edit.variant), h("span", {}, name));
  if (edit.failed) return h("div", { class: "column failed-column" }, head, h("p", { class: "reason" }, h("b", {}, "failed"), " ", edit.error));
  const open = () => openViewer(sample, edit);
  const own = edit.pictures.source !== firstSource && edit.pictures.source != null;
  return h("div", { class: "column" }, head,
    kept ? picture(edit.pictures.target, `${name}: ${text(sample.target)}`, open) : null,
    kept && state.difference ? picture(edit.pictures.difference, `${name}: difference to the source`, open) : null,
    kept && state.heatmaps ? picture(edit.pictures.heatTarget, `${name}: attention to the edited words`, open) : null,
    state.scores ? scores(edit, shownEdits) : null,
    own ? h("div", { class: "own-source" }, h("small", {}, "its own source"), picture(edit.pictures.source, `${name}: source`, open)) : null);
}

// What the source picture is: without an inversion, a real image has no reconstruction.
function sourceName(edit) {
  if (!edit || edit.pictures.original == null || edit.pictures.original === edit.pictures.source) return "source";
  return data.variants[edit.variant].settings.inversion === "none" ? "generated" : "reconstruction";
}

function sourceColumns(sample, edits, kept) {
  if (!kept) return h("div", { class: "column source-column" }, h("div", { class: "column-head" }, "no pictures kept"), state.scores ? scoreNames() : null);
  const first = edits.find((edit) => edit.pictures.source != null);
  const original = edits.find((edit) => edit.pictures.original != null);
  const heat = edits.find((edit) => edit.pictures.heatSource != null);
  const open = first ? () => openViewer(sample, first) : null;
  const real = original && (!first || original.pictures.original !== first.pictures.source);
  const label = (word) => h("span", { class: "row-label" }, word + " →");
  return [
    real ? h("div", { class: "column" }, h("div", { class: "column-head" }, "real image"),
      picture(original.pictures.original, "real image", open)) : null,
    h("div", { class: "column source-column" }, h("div", { class: "column-head" }, sourceName(first)),
      picture(first ? first.pictures.source : null, "source: " + text(sample.source), open),
      state.difference ? label("difference") : null,
      !state.heatmaps ? null : !heat ? label("attention") : h("div", { class: "named" },
        picture(heat.pictures.heatSource, "source: attention to the edited words", open), h("span", { "aria-hidden": "true" }, "attention")),
      state.scores ? scoreNames() : null),
  ];
}

function card(sample) {
  const shown = new Set(visible());
  const edits = sample.edits.filter((edit) => shown.has(edit.variant)).sort((a, b) => a.variant - b.variant);
  const ok = edits.filter((edit) => !edit.failed);
  const first = ok.find((edit) => edit.pictures.source != null);
  const kept = edits.some((edit) => Object.values(edit.pictures).some((number) => number != null));
  return h("article", { class: "card sample", "data-id": sample.id, "aria-label": sample.id },
    h("div", { class: "about" },
      h("p", { class: "tags" }, sample.category ? h("span", { class: "tag" }, sample.category) : null, h("span", { class: "mono" }, sample.id + (sample.targetIndex ? " · target " + (sample.targetIndex + 1) : ""))),
      prompts(sample)),
    h("div", { class: "scroll columns", tabindex: 0, role: "region", "aria-label": "pictures of " + sample.id },
      sourceColumns(sample, ok, kept), edits.map((edit) => column(sample, edit, ok, first ? first.pictures.source : null, kept))));
}

function addCards() {
  $("cards").append(...queue.splice(0, BATCH).map(card));
}

function drawGallery() {
  const found = chosenSamples();
  queue = [...found];
  const part = data.samples.length < data.whole.samples;
  const all = `${part ? "first " : ""}${whole(data.samples.length)} cards`;
  $("shown").textContent = found.length === data.samples.length ? all : `${whole(found.length)} of ${part ? "the " : ""}${all}`;
  $("nothing").hidden = found.length > 0;
  $("cards").replaceChildren();
  addCards();
  fill();
}

// More cards while the end of the list is near the window.
function fill() {
  while (queue.length && $("more").getBoundingClientRect().top < window.innerHeight * 2) addCards();
}
