// What the page shows (data) and what the reader chose (state).
const data = JSON.parse(document.getElementById("data").textContent);
const metricIndex = new Map(data.metrics.map((metric, i) => [metric.name, i]));
const scored = data.metrics.filter((metric) =>
  data.variants.some((variant) => variant.means[""][metricIndex.get(metric.name)][1] > 0));

const defaults = {
  category: "", off: [], q: "", sort: "", order: "worst",
  x: data.axes ? data.axes.x : "", y: data.axes ? data.axes.y : "",
  metric: data.axes ? data.axes.x : "", all: false, edit: "", difference: true, heatmaps: true, scores: true,
};
const state = { ...defaults };

const visible = () => data.variants.map((_, i) => i).filter((i) => !state.off.includes(i));

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
