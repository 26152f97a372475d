// What the report holds (data, rows as they arrive) and what the reader chose (state).
let data, metricIndex, measured;
const rows = [];            // every row that has arrived: { entry, sample, error, scores, pictures }
const rowsOf = new Map();   // entry number to its rows
let thumbs = [];
let filesLeft = Infinity;
const VIEWS = ["overview", "tables", "strips", "gallery", "worst", "difference"];
const defaults = {
  view: "overview", category: "", q: "", sel: "", sort: "", dir: "down", x: "", y: "", all: false, published: true,
  method: "", find: "", entry: "", gsort: "", order: "worst", k: "6", a: "", b: "", metric: "", edit: "",
};
const state = { ...defaults };

const metricOf = (name) => data.metrics[metricIndex.get(name)];
const selection = () => new Set(state.sel ? state.sel.split(",").map(Number) : []);
const loaded = () => filesLeft === 0;

function matchesWords(text, query) {
  const low = text.toLowerCase();
  return query.toLowerCase().split(/\s+/).filter(Boolean).every((word) => low.includes(word));
}

// Entries that the search leaves, and of these the brushed ones (all, while none is brushed).
const found = () => data.entries.map((_, i) => i).filter((i) => matchesWords(data.entries[i].name, state.q));
function shown() {
  const chosen = selection();
  return chosen.size ? found().filter((i) => chosen.has(i)) : found();
}

// Mean, count, low, high of an entry in the chosen category; by category there is no interval.
function meanOf(i, name) {
  const at = metricIndex.get(name), entry = data.entries[i];
  if (!state.category) return entry.means[at];
  const part = entry.categories[state.category];
  return part ? [part[at][0], part[at][1], null, null] : [null, 0, null, null];
}

const methodNumber = (i) => { const at = data.methods.findIndex((method) => method.entries.includes(i)); return at < 0 ? 7 : at; };
const entrySwatch = (i) => swatch(methodNumber(i));
const inCategory = (row) => !state.category || data.samples[row.sample][2] === state.category;
const scoreOf = (row, name) => (row.error == null ? row.scores[metricIndex.get(name)] : null);
const promptText = (segments) => segments.map((segment) => segment[0]).join("");

// Sorts rows by a metric; rows without a value come last, whichever the order.
function sortRows(list, name, order) {
  const metric = metricOf(name), sign = (metric.higher === false ? -1 : 1) * (order === "best" ? -1 : 1);
  const rank = (row) => { const value = scoreOf(row, name); return value == null ? Infinity : sign * value; };
  return [...list].sort((p, q) => { const a = rank(p), b = rank(q); return a === b ? 0 : a < b ? -1 : 1; });
}

function start(summary) {
  data = summary;
  data.methods = data.tables ? data.tables.methods : [];
  metricIndex = new Map(data.metrics.map((metric, i) => [metric.name, i]));
  measured = data.metrics.filter((metric) => metric.count > 0);
  const scores = measured.filter((metric) => metric.role !== "cost");
  const first = data.axes || { x: scores.length ? scores[0].name : "", y: scores.length ? scores[0].name : "" };
  const ordered = data.methods.flatMap((method) => method.entries);
  const curve = data.methods.find((method) => method.entries.length > 1);
  Object.assign(defaults, { x: first.x, y: first.y, metric: first.x, gsort: first.y, method: curve ? curve.name : "",
    a: String(ordered.length ? ordered[0] : 0), b: String(ordered.length > 1 ? ordered[ordered.length - 1] : 0) });
}

// The state lives in the address after "#", so that a view can be kept and shared.
function readHash() {
  Object.assign(state, defaults);
  for (const [name, value] of new URLSearchParams(location.hash.slice(1))) {
    if (typeof defaults[name] === "boolean") state[name] = value === "1";
    else if (name in defaults) state[name] = value;
  }
  if (!VIEWS.includes(state.view)) state.view = "overview";
  if (!data.categories.includes(state.category)) state.category = "";
  for (const name of ["x", "y", "metric", "gsort"]) if (!metricIndex.has(state[name])) state[name] = defaults[name];
  for (const name of ["a", "b"]) if (!data.entries[state[name]]) state[name] = defaults[name];
  if (state.entry && !data.entries[state.entry]) state.entry = "";
  state.sel = state.sel.split(",").filter((i) => i !== "" && data.entries[i]).join(",");
}

function writeHash() {
  const next = new URLSearchParams();
  for (const [name, value] of Object.entries(state)) {
    if (value !== defaults[name]) next.set(name, typeof value === "boolean" ? (value ? "1" : "0") : value);
  }
  history.replaceState(null, "", "#" + next.toString());
}
