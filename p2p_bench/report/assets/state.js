// What the page shows (data), what the reader chose (state), and small helpers used everywhere.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const metricIndex = new Map(data.metrics.map((metric, i) => [metric.name, i]));
const scored = data.metrics.filter((metric) =>
  data.variants.some((variant) => variant.means[""][metricIndex.get(metric.name)][1] > 0));

const defaults = {
  category: "", off: [], q: "", sort: "", order: "worst",
  x: data.axes ? data.axes.x : "", y: data.axes ? data.axes.y : "",
  metric: data.axes ? data.axes.x : "", all: false, edit: "", difference: true, heatmaps: true, scores: true,
};
const state = { ...defaults };

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

const arrow = (metric) => (metric.higher === true ? "↑" : metric.higher === false ? "↓" : "");
const named = (metric, name) => name + (metric.unit ? " (" + metric.unit + ")" : "");

// The network behind a number; those of the embedded world stand out.
function backbone(metric) {
  if (!metric.backbone) return null;
  const world = metric.backbone === "world";
  return h("span", { class: world ? "badge" : "badge plain", title: world ? "a number of the embedded world, not comparable with published ones" : "network" }, metric.backbone);
}

const visible = () => data.variants.map((_, i) => i).filter((i) => !state.off.includes(i));
const swatch = (i) => h("span", { class: "swatch v" + (i % 8) + (i >= 8 ? " alt" : ""), "aria-hidden": "true" });
// The best of some values as it is written, or null where they are all written alike.
function bestOf(metric, values) {
  const given = values.filter((value) => value != null);
  if (metric.higher == null || new Set(given.map(format)).size < 2) return null;
  return format(given.reduce((a, b) => (better(metric, b, a) ? b : a)));
}

const better = (metric, a, b) => (metric.higher === false ? a < b : a > b);

// The state lives in the address after "#", so that a view can be kept and shared.
function readHash() {
  Object.assign(state, defaults, { off: [] });
  const given = new URLSearchParams(location.hash.slice(1));
  for (const [name, value] of given) {
    if (name === "hide") {
      const hidden = value.split(",");
      state.off = data.variants.map((_, i) => i).filter((i) => hidden.includes(String(i)));
    } else if (typeof defaults[name] === "boolean") state[name] = value === "1";
    else if (name in defaults) state[name] = value;
  }
  if (!data.categories.includes(state.category)) state.category = "";
  for (const name of ["x", "y", "metric"]) if (!metricIndex.has(state[name])) state[name] = defaults[name];
  if (!metricIndex.has(state.sort)) state.sort = "";
  if (state.order !== "best") state.order = "worst";
}

function writeHash() {
  const next = new URLSearchParams();
  for (const [name, value] of Object.entries(state)) {
    if (name === "off") { if (value.length) next.set("hide", value.join(",")); }
    else if (value !== defaults[name]) next.set(name, typeof value === "boolean" ? (value ? "1" : "0") : value);
  }
  history.replaceState(null, "", "#" + next.toString());
}

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
