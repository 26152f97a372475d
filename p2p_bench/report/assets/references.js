// References: the source untouched ("no edit") and what the VAE alone leaves of it, scored like edits.
const referenceOf = (kind) => data.references.find((one) => one.kind === kind);

// Mean, count, low, high of a reference in the chosen category, or null where it has no value.
function referenceMean(kind, name, category = state.category) {
  const means = (referenceOf(kind) || { means: {} }).means[category];
  const mean = means ? means[metricIndex.get(name)] : null;
  return mean && mean[0] != null ? mean : null;
}

const boundOf = (metric, category) => (data.bounded.includes(metric.name) ? referenceMean("vae", metric.name, category) : null);

// Beside every fidelity: what the VAE alone reaches.
function boundNote(metric, category) {
  const bound = boundOf(metric, category);
  return bound && h("span", { class: "bound-note", title: "the real source image through the VAE and back, unedited" }, "VAE alone " + format(bound[0]));
}

function referenceCell(metric, mean, count) {
  if (!mean) return h("td", { class: "number undefined" }, "–");
  return h("td", { class: "number" }, h("span", { class: "mean" }, format(mean[0])),
    mean[2] == null ? null : h("span", { class: "interval" }, format(mean[2]) + " to " + format(mean[3])),
    mean[1] === count ? null : h("span", { class: "count" }, "n = " + mean[1]));
}

// Rows below the edits; a column without a metric is left empty.
function referenceRows(metrics) {
  return data.references.map((one) => {
    const count = one.counts[state.category] || 0;
    return h("tr", { class: "reference" }, h("th", { scope: "row" }, h("span", { class: "variant-name" }, one.name), h("span", { class: "badge plain" }, "reference")),
      h("td", { class: "number" }, count.toLocaleString("en")),
      metrics.map((metric) => referenceCell(metric, metric && referenceMean(one.kind, metric.name), count)));
  });
}

// What an axis has to show besides its points: no edit, unless it is a fidelity so far off that it would squeeze
// the points (the PSNR of equal pictures), and up the axis the VAE's bound.
function withReferences(metric, values, upwards) {
  const still = referenceMean("no_edit", metric.name), bound = upwards ? boundOf(metric) : null;
  const shown = bound ? [...values, bound[0]] : values, low = Math.min(...shown), high = Math.max(...shown);
  const far = still ? Math.max(low - still[0], still[0] - high) : Infinity;
  return far <= high - low || (still && metric.role !== "fidelity") ? [...shown, still[0]] : shown;
}

// Where the untouched source is, at an edge where the chart ends before it; null where it has no value.
function stillPlace(x, y, sx, sy, box) {
  const [across, up] = [referenceMean("no_edit", x.name), referenceMean("no_edit", y.name)];
  if (!across || !up) return null;
  const at = [sx.at(across[0]), sy.at(up[0])];
  const px = Math.min(box[2] - 9, Math.max(box[0] + 9, at[0])), py = Math.min(box[3] - 9, Math.max(box[1] + 1, at[1]));
  const beyond = at[1] < box[1] ? ` ${format(up[0])} ↑` : at[0] > box[2] ? ` ${format(across[0])} →` : "";
  return { px, py, text: "no edit" + beyond, right: px < (box[0] + box[2]) / 2 };
}

function stillMark({ px, py, text, right }) {
  return s("g", { class: "still" }, s("path", { d: `M${px},${py - 7}l7,12h-14z` }),
    s("text", { x: px + (right ? 12 : -12), y: py + 5, "text-anchor": right ? "start" : "end" }, text));
}

// The VAE's bound, named at the end where no edit is not.
function boundLine(metric, sy, box, still) {
  const py = sy.at(boundOf(metric)[0]), left = still && !still.right;
  return s("g", { class: "bound" }, s("line", { x1: box[0], x2: box[2], y1: py, y2: py }),
    s("text", { x: left ? box[0] + 6 : box[2] - 6, y: py + 16, "text-anchor": left ? "start" : "end" }, "VAE alone " + format(boundOf(metric)[0]) + (metric.unit === "dB" ? " dB" : "")));
}

// What the marks mean, and why one is absent.
function referenceText(x, y) {
  if (!data.references.length) return "These runs hold no scores of the untouched source: they are older than these references, or nothing was measured.";
  const without = [...new Set([x, y])].filter((metric) => !referenceMean("no_edit", metric.name)).map((metric) => metric.short);
  return (without.length ? `No edit, the source untouched, has no ${without.join(" and no ")}. ` : "The triangle is no edit: the source untouched, scored like an edit. ") +
    (boundOf(y) ? "The dotted line is the VAE alone: the real source image through the model's VAE and back." :
      !data.bounded.includes(y.name) && y.role === "fidelity" ? "The VAE's bound needs real source images." : "");
}
