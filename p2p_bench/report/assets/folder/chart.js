// The trade-off chart: a point per entry, a line per method, the front of all; brushed by dragging.
let chart = null;

const spanOf = (mean) => [mean[2] == null ? mean[0] : mean[2], mean[3] == null ? mean[0] : mean[3]];

// A scale that grows towards "better", whichever way the metric runs.
function axisScale(metric, values, from, to) {
  let low = Math.min(...values), high = Math.max(...values);
  const room = (high - low) * 0.07 || Math.abs(high) * 0.1 || 1;
  low -= room; high += room;
  const flipped = metric.higher === false;
  return { low, high, at: (value) => from + (to - from) * (flipped ? (high - value) / (high - low) : (value - low) / (high - low)) };
}

function chartPoints(x, y) {
  return found().map((i) => ({ i, x: meanOf(i, x.name), y: meanOf(i, y.name) })).filter((point) => point.x[0] != null && point.y[0] != null);
}

// Points that no other point beats in both directions, from left to right.
function frontOf(points, x, y) {
  const u = (point) => (x.higher === false ? -1 : 1) * point.x[0], v = (point) => (y.higher === false ? -1 : 1) * point.y[0];
  let height = -Infinity;
  return [...points].sort((p, q) => u(q) - u(p) || v(q) - v(p)).filter((point) => { const above = v(point) > height; height = Math.max(height, v(point)); return above; }).reverse();
}

function drawChart() {
  const svg = $("plot-svg"), width = Math.max(300, $("plot").clientWidth), height = Math.round(Math.min(500, Math.max(330, width * 0.42)));
  const x = metricOf(state.x), y = metricOf(state.y), points = x && y ? chartPoints(x, y) : [];
  $("tip").hidden = true;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("height", height);
  chart = null;
  drawReferences(x, y);
  if (!points.length) {
    svg.replaceChildren(s("text", { class: "empty-plot", x: width / 2, y: height / 2, "text-anchor": "middle" }, "No run has a value of both metrics here."));
    return;
  }
  const narrow = width < 520, box = [60, 28, width - 14, height - 50];
  const few = points.length <= 40 ? spanOf : (mean) => [mean[0]]; // intervals of many points hide them
  const known = publishedPoints(x, y), across = points.flatMap((point) => few(point.x)), up = points.flatMap((point) => few(point.y));
  const sx = axisScale(x, withReferences(x, [...across, ...known.map((row) => row.values[x.name])], false), box[0], box[2]);
  const sy = axisScale(y, withReferences(y, [...up, ...known.map((row) => row.values[y.name])], true), box[3], box[1]);
  const still = stillPlace(x, y, sx, sy, box);
  const places = new Map(points.map((point) => [point.i, [sx.at(point.x[0]), sy.at(point.y[0])]]));
  chart = { x, y, points, places, box };
  svg.replaceChildren(chartGrid(sx, sy, box), chartTitles(x, y, box, width, height, narrow),
    boundOf(y) ? boundLine(y, sy, box, still) : s("g"), frontLine(frontOf(points, x, y), places), methodLines(places),
    still ? stillMark(still) : s("g"), publishedMarks(x, y, sx, sy), s("rect", { id: "brush", class: "brush", width: 0, height: 0 }),
    chartMarks(points, places, sx, sy, points.length <= 40));
  markSelection();
}

function chartGrid(sx, sy, box) {
  const across = ticks(sx.low, sx.high, Math.max(3, Math.round((box[2] - box[0]) / 110))), up = ticks(sy.low, sy.high, 6);
  const write = (value, digits) => (digits > 4 ? value.toExponential(1) : value.toFixed(digits)).replace("-", "−");
  return s("g", { class: "grid" },
    across.found.flatMap((value) => [s("line", { x1: sx.at(value), x2: sx.at(value), y1: box[1], y2: box[3] }),
      s("text", { x: sx.at(value), y: box[3] + 20, "text-anchor": "middle" }, write(value, across.digits))]),
    up.found.flatMap((value) => [s("line", { x1: box[0], x2: box[2], y1: sy.at(value), y2: sy.at(value) }),
      s("text", { x: box[0] - 8, y: sy.at(value) + 4, "text-anchor": "end" }, write(value, up.digits))]));
}

function chartTitles(x, y, box, width, height, narrow) {
  const title = (metric) => named(metric, narrow ? metric.short : metric.title) + (metric.backbone && !narrow ? " · " + metric.backbone : "") +
    (metric.higher == null ? "" : narrow ? (metric.higher ? "" : ", reversed") : metric.higher ? " · higher is better" : " · lower is better");
  const middle = (box[1] + box[3]) / 2;
  return s("g", { class: "axis" },
    s("text", { x: (box[0] + box[2]) / 2, y: height - 6, "text-anchor": "middle" }, title(x) + " →"),
    s("text", { x: 13, y: middle, "text-anchor": "middle", transform: `rotate(-90 13 ${middle})` }, title(y) + " →"),
    x.higher != null && y.higher != null ? [s("text", { class: "better", x: box[2], y: box[1] - 10, "text-anchor": "end" }, "better ↗")] : []);
}

function frontLine(front, places) {
  const path = front.map((point) => places.get(point.i));
  const d = path.map(([px, py], k) => (k ? `V${py}H${px}` : `M${px},${py}`)).join("");
  return s("path", { class: "front", d });
}

function methodLines(places) {
  return s("g", { class: "lines" }, data.methods.map((method, k) => {
    const at = method.entries.filter((i) => places.has(i)).map((i) => places.get(i).join(","));
    return at.length > 1 ? [s("polyline", { class: "v" + (k % 8), points: at.join(" ") })] : [];
  }).flat());
}

function markShape(i, px, py) {
  const kind = "mark v" + (methodNumber(i) % 8), shape = data.entries[i].plain ? 3 : Math.floor(methodNumber(i) / 8) % 3;
  if (shape === 0) return s("circle", { class: kind, cx: px, cy: py, r: 6 });
  if (shape === 1) return s("path", { class: kind, d: `M${px - 5.5},${py - 5.5}h11v11h-11z` });
  return s("path", { class: kind + (shape === 3 ? " plain" : ""), d: `M${px},${py - 7.5}l7.5,7.5l-7.5,7.5l-7.5,-7.5z` });
}

// One point takes the tab key, the arrow keys go from there to the next one, left to right.
function chartMarks(points, places, sx, sy, bars) {
  const sorted = [...points].sort((p, q) => places.get(p.i)[0] - places.get(q.i)[0]);
  const groups = sorted.map((point, k) => {
    const [px, py] = places.get(point.i), [xl, xh] = spanOf(point.x), [yl, yh] = spanOf(point.y);
    const words = `${data.entries[point.i].name}: ${named(chart.x, chart.x.title)} ${format(point.x[0])}, ${named(chart.y, chart.y.title)} ${format(point.y[0])}`;
    const group = s("g", { class: "point", "data-entry": point.i, tabindex: k ? -1 : 0, role: "button", "aria-label": words },
      bars ? [s("path", { class: "bar-x v" + (methodNumber(point.i) % 8), d: `M${sx.at(xl)},${py}H${sx.at(xh)}M${px},${sy.at(yl)}V${sy.at(yh)}` })] : [],
      s("circle", { class: "halo", cx: px, cy: py, r: 13 }), markShape(point.i, px, py));
    for (const event of ["pointerenter", "focus"]) group.addEventListener(event, () => showTip(point, px, py));
    for (const event of ["pointerleave", "blur"]) group.addEventListener(event, () => { $("tip").hidden = true; });
    group.addEventListener("click", () => toggleEntry(point.i));
    group.addEventListener("keydown", (event) => {
      const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (by && groups[k + by]) groups[k + by].focus();
      else if (event.key === "Enter" || event.key === " ") toggleEntry(point.i);
      else return;
      event.preventDefault();
    });
    return group;
  });
  return s("g", { id: "marks" }, groups);
}

function showTip(point, px, py) {
  const line = (metric, mean) => h("div", {}, h("span", {}, named(metric, metric.short)), h("b", {}, format(mean[0])),
    h("small", {}, (mean[2] == null ? "" : format(mean[2]) + " to " + format(mean[3]) + ", ") + "n = " + mean[1]));
  const tip = $("tip"), entry = data.entries[point.i];
  tip.replaceChildren(h("strong", {}, entrySwatch(point.i), entry.name), entry.plain ? h("div", {}, entry.plain) : "",
    line(chart.x, point.x), line(chart.y, point.y));
  tip.hidden = false;
  tip.style.left = Math.max(0, Math.min($("plot").clientWidth - tip.offsetWidth, px + 16)) + "px";
  tip.style.top = Math.max(0, py - tip.offsetHeight - 12) + "px";
}

// The methods and their colours; a click takes a method's runs into the selection or out of it.
function drawLegend() {
  const chosen = selection();
  $("legend").replaceChildren(...data.methods.slice(0, 24).map((method, k) => {
    const all = method.entries.every((i) => chosen.has(i));
    return h("button", { type: "button", class: "chip", "aria-pressed": chosen.size ? String(all) : null, onclick: () => {
      const next = selection();
      for (const i of method.entries) if (all) next.delete(i); else next.add(i);
      select(next);
      $("legend").children[k].focus();
    } }, swatch(k), method.name);
  }), ...(data.methods.length > 24 ? [h("span", { class: "note" }, `and ${data.methods.length - 24} more`)] : []));
}

function markSelection() {
  const chosen = selection();
  drawLegend();
  for (const group of document.querySelectorAll("#marks .point")) {
    group.classList.toggle("dim", chosen.size > 0 && !chosen.has(Number(group.dataset.entry)));
    group.setAttribute("aria-pressed", String(chosen.has(Number(group.dataset.entry))));
  }
}

function select(entries) {
  set({ sel: [...entries].sort((p, q) => p - q).join(",") }, () => { markSelection(); drawFilters(); drawTable(); });
}

function toggleEntry(i) {
  const chosen = selection();
  if (!chosen.delete(i)) chosen.add(i);
  select(chosen);
}

// Dragging over the chart selects the points inside; a finger may still scroll the page up and down.
function installBrush() {
  const svg = $("plot-svg");
  let from = null;
  const at = (event) => { const frame = svg.getBoundingClientRect(); return [event.clientX - frame.left, event.clientY - frame.top]; };
  const frame = (p, q) => [Math.min(p[0], q[0]), Math.min(p[1], q[1]), Math.max(p[0], q[0]), Math.max(p[1], q[1])];
  const inside = (r) => chart.points.map((point) => point.i).filter((i) => {
    const [px, py] = chart.places.get(i);
    return px >= r[0] && px <= r[2] && py >= r[1] && py <= r[3];
  });
  svg.addEventListener("pointerdown", (event) => { if (chart && event.button === 0 && !event.target.closest(".point")) from = at(event); });
  window.addEventListener("pointermove", (event) => {
    if (!from || !chart) return;
    const r = frame(from, at(event)), rect = $("brush");
    for (const [name, value] of [["x", r[0]], ["y", r[1]], ["width", r[2] - r[0]], ["height", r[3] - r[1]]]) rect.setAttribute(name, value);
    svg.classList.add("brushing");
  });
  window.addEventListener("pointerup", (event) => {
    if (!from || !chart) return;
    const r = frame(from, at(event)), drag = r[2] - r[0] > 4 || r[3] - r[1] > 4;
    from = null;
    svg.classList.remove("brushing");
    for (const name of ["width", "height"]) $("brush").setAttribute(name, 0);
    select(drag ? inside(r) : []);
  });
  window.addEventListener("pointercancel", () => { from = null; svg.classList.remove("brushing"); });
}

function drawReferences(x, y) {
  const parts = x && y ? [referenceText(x, y), publishedText(x, y)].filter(Boolean) : [];
  parts.push(data.entries.some((entry) => entry.plain) ? "Hollow diamonds are plain generation from the target prompt; it ignores the source, unless it starts from the inverted image." :
    "No run here is without control; run.baseline=true adds plain generation as a reference.");
  $("references").textContent = parts.join(" ");
}
