// Small helpers used everywhere: elements, numbers, options.
const $ = (id) => document.getElementById(id);

// An element with attributes, listeners (onclick: f) and children; strings become text, never markup.
function h(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child != null));
  return node;
}

// Numbers for readers: as many digits as tell, "–" where undefined.
function format(value) {
  if (value == null) return "–";
  const size = Math.abs(value);
  let text;
  if (size >= 1000) text = Math.round(value).toLocaleString("en");
  else if (Number.isInteger(value) && (size >= 10 || size === 0)) text = String(value);
  else if (size >= 100) text = value.toFixed(1);
  else if (size >= 10) text = value.toFixed(2);
  else if (size >= 0.1) text = value.toFixed(3);
  else if (size >= 0.001) text = value.toFixed(4);
  else if (size >= 0.0001) text = value.toFixed(5);
  else text = value.toExponential(1);
  return text.replace("-", "−");
}

const whole = (number) => number.toLocaleString("en");
const arrow = (metric) => (metric.higher === true ? "↑" : metric.higher === false ? "↓" : "");
const named = (metric, name) => name + (metric.unit ? " (" + metric.unit + ")" : "");

// The network behind a number; those of the embedded world stand out.
function backbone(metric) {
  if (!metric.backbone) return null;
  const world = metric.backbone === "world";
  return h("span", { class: world ? "badge" : "badge plain", title: world ? "a number of the embedded world, not comparable with published ones" : "network" }, metric.backbone);
}

// A mark where the page has a note on a metric; the note itself stands below the table.
const noted = (metric) => (metric.note ? h("span", { class: "noted", title: metric.note }, "†") : null);

const swatch = (i) => h("span", { class: "swatch v" + (i % 8) + (i >= 8 ? " alt" : ""), "aria-hidden": "true" });
// The best of some values as it is written, or null where they are all written alike.
function bestOf(metric, values) {
  const given = values.filter((value) => value != null);
  if (metric.higher == null || new Set(given.map(format)).size < 2) return null;
  return format(given.reduce((a, b) => (better(metric, b, a) ? b : a)));
}

const better = (metric, a, b) => (metric.higher === false ? a < b : a > b);

function options(select, entries, chosen) {
  select.replaceChildren(...entries.map(([value, text]) => h("option", { value, selected: value === chosen }, text)));
}

function metricOptions(select, metrics, chosen, first) {
  const groups = [["editability", "Editability (changes)"], ["fidelity", "Fidelity (keeps)"], ["other", "Other"], ["cost", "Cost"]];
  select.replaceChildren(...(first ? [h("option", { value: "" }, first)] : []), ...groups.flatMap(([role, label]) => {
    const members = metrics.filter((metric) => (groups.some(([known]) => known === metric.role) ? metric.role : "other") === role);
    return members.length ? [h("optgroup", { label }, members.map((metric) =>
      h("option", { value: metric.name, selected: metric.name === chosen }, metric.title + " " + arrow(metric))))] : [];
  }));
  select.value = chosen;
}

// Elements of the plot, and round numbers for its axes.
const SVG = $("plot-svg").namespaceURI;

function s(tag, attributes, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes || {})) if (value != null) node.setAttribute(name, value);
  node.append(...children.flat());
  return node;
}

function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k++) found.push(k * step);
  return { found, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
}
