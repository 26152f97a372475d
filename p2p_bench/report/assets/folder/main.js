// Controls, the order in which data arrive, and what is drawn again when something changes.
const drawings = {
  overview: () => { drawChart(); drawTable(); }, tables: drawTables, strips: drawStrips,
  gallery: drawGallery, worst: drawWorst, difference: drawDifference,
};

function drawView() {
  pending.queue = [];
  drawFilters();
  drawings[state.view]();
}

function set(changes, draw) {
  Object.assign(state, changes);
  writeHash();
  draw();
}

function show(view) {
  set({ view }, drawView);
  window.scrollTo({ top: Math.min(window.scrollY, $("bar").offsetTop) });
}

function installControls() {
  const on = (id, event, changes) => $(id).addEventListener(event, () => set(changes($(id)), drawView));
  on("category", "change", (control) => ({ category: control.value }));
  on("query", "input", (control) => ({ q: control.value }));
  on("axis-x", "change", (control) => ({ x: control.value }));
  on("axis-y", "change", (control) => ({ y: control.value }));
  on("all-metrics", "change", (control) => ({ all: control.checked }));
  on("with-published", "change", (control) => ({ published: control.checked }));
  on("method", "change", (control) => ({ method: control.value }));
  on("entry", "change", (control) => ({ entry: control.value }));
  on("gsort", "change", (control) => ({ gsort: control.value }));
  on("order", "change", (control) => ({ order: control.value }));
  on("find", "input", (control) => ({ find: control.value }));
  on("k", "change", (control) => ({ k: control.value }));
  on("run-a", "change", (control) => ({ a: control.value }));
  on("run-b", "change", (control) => ({ b: control.value }));
  on("diff-metric", "change", (control) => ({ metric: control.value }));
  $("swap").addEventListener("click", () => set({ a: state.b, b: state.a }, drawView));
  $("clear").addEventListener("click", () => set({ sel: "" }, drawView));
  for (const tab of $("tabs").children) tab.addEventListener("click", () => show(tab.dataset.view));
}

// 1 to 6 choose a view, / goes to the search, Escape clears what is brushed.
function installKeys() {
  document.addEventListener("keydown", (event) => {
    const typing = ["INPUT", "SELECT", "TEXTAREA"].includes(event.target.tagName);
    if (typing || $("viewer").open || event.ctrlKey || event.metaKey || event.altKey) return;
    if (VIEWS[Number(event.key) - 1]) show(VIEWS[Number(event.key) - 1]);
    else if (event.key === "/") { $(state.view === "gallery" ? "find" : "query").focus(); event.preventDefault(); }
    else if (event.key === "Escape" && state.sel) set({ sel: "" }, drawView);
  });
}

// Row files come one after the other, after the first view is on the screen.
function loadFiles() {
  const names = ["pictures.js", ...Array.from({ length: data.numFiles }, (_, i) => `rows-${String(i).padStart(3, "0")}.js`)];
  filesLeft = names.length;
  const next = () => {
    const name = names.shift();
    if (!name) return arrived();
    const script = h("script", { src: "data/" + name });
    script.addEventListener("load", () => { filesLeft -= 1; next(); });
    script.addEventListener("error", () => { $("trouble").hidden = false; $("trouble").textContent = `data/${name} could not be read; copy the whole folder, or write the report again.`; });
    document.head.append(script);
  };
  next();
}

function arrived() {
  document.documentElement.dataset.loaded = "1";
  if (state.view !== "overview" && state.view !== "tables") drawView();
  openNamed();
}

window.P2P = {
  summary(summary) {
    start(summary);
    readHash();
    installControls();
    installKeys();
    installBrush();
    installViewer();
    drawView();
    window.addEventListener("hashchange", () => { readHash(); drawView(); openNamed(); });
    window.addEventListener("scroll", fill, { passive: true });
    let width = $("plot").clientWidth;
    new ResizeObserver(() => { if (state.view === "overview" && $("plot").clientWidth !== width) { width = $("plot").clientWidth; drawChart(); } }).observe($("plot"));
    document.documentElement.dataset.ready = String(Math.round(performance.now()));
    setTimeout(loadFiles);
  },
  pictures(files) { thumbs = files; },
  rows(found) {
    for (const [entry, sample, error, scores, pictures] of found) {
      const row = { entry, sample, error, scores, pictures };
      rows.push(row);
      if (!rowsOf.has(entry)) rowsOf.set(entry, []);
      rowsOf.get(entry).push(row);
    }
  },
};
