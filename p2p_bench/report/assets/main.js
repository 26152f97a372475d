// Controls, and what is drawn again when one of them moves.
function drawControls() {
  options($("category"), [["", "all"], ...data.categories.filter((name) => name).map((name) => [name, name])], state.category);
  $("category").parentElement.hidden = data.categories.filter((name) => name).length < 2;
  $("chips").replaceChildren(...data.variants.map((variant, i) => h("button", {
    type: "button", class: "chip", "aria-pressed": String(!state.off.includes(i)), onclick: () => toggle(i),
  }, swatch(i), variant.name)));
  metricOptions($("axis-x"), scored, state.x);
  metricOptions($("axis-y"), scored, state.y);
  metricOptions($("breakdown"), scored, state.metric);
  metricOptions($("sort"), scored.filter((metric) => metric.higher != null), state.sort, "as run");
  $("order").value = state.order;
  $("order").disabled = !state.sort;
  $("query").value = state.q;
  $("all-metrics").checked = state.all;
  for (const name of ["difference", "heatmaps", "scores"]) $("show-" + name).checked = state[name];
}

function toggle(i) {
  const off = state.off.includes(i) ? state.off.filter((other) => other !== i) : [...state.off, i].sort((a, b) => a - b);
  if (off.length === data.variants.length) return; // the last one stays: an empty page helps nobody
  set({ off }, drawAll);
  $("chips").children[i].focus();
}

function set(changes, draw) {
  Object.assign(state, changes);
  writeHash();
  draw();
}

function drawAll() {
  drawControls();
  drawMeans();
  drawCategories();
  drawPlot();
  drawGallery();
}

const on = (id, event, changes, draw) => $(id).addEventListener(event, () => set(changes($(id)), draw));
on("category", "change", (control) => ({ category: control.value }), drawAll);
on("all-metrics", "change", (control) => ({ all: control.checked }), drawMeans);
on("breakdown", "change", (control) => ({ metric: control.value }), drawCategories);
on("axis-x", "change", (control) => ({ x: control.value }), drawPlot);
on("axis-y", "change", (control) => ({ y: control.value }), drawPlot);
on("sort", "change", (control) => ({ sort: control.value }), () => { drawControls(); drawGallery(); });
on("order", "change", (control) => ({ order: control.value }), drawGallery);
on("query", "input", (control) => ({ q: control.value }), drawGallery);
for (const name of ["difference", "heatmaps", "scores"]) on("show-" + name, "change", (control) => ({ [name]: control.checked }), drawGallery);
$("reset").addEventListener("click", () => set({ category: "", off: [], q: "" }, drawAll));

window.addEventListener("hashchange", () => {
  if (document.getElementById(location.hash.slice(1))) return; // a jump within the page
  readHash();
  drawAll();
  openNamed();
});
window.addEventListener("scroll", fill, { passive: true });
let width = 0;
new ResizeObserver(() => { if ($("plot").clientWidth !== width) { width = $("plot").clientWidth; drawPlot(); fill(); } }).observe($("plot"));

$("cards").classList.toggle("long-names", data.variants.some((variant) => variant.name.length > 15));
readHash();
drawAll();
openNamed();
document.documentElement.dataset.ready = "1";
