// The trade-off plot: a point per variant, drawn as SVG at the width there is.

// A scale that grows towards "better", whichever way the metric runs.
function scale(metric, values, from, to) {
  let low = Math.min(...values), high = Math.max(...values);
  const room = (high - low) * 0.08 || Math.abs(high) * 0.1 || 1;
  low -= room; high += room;
  const flipped = metric.higher === false;
  const at = (value) => from + (to - from) * (flipped ? (high - value) / (high - low) : (value - low) / (high - low));
  return { at, low, high };
}

function plotPoints(x, y) {
  return visible().map((i) => {
    const means = data.variants[i].means[state.category];
    return { i, x: means[metricIndex.get(x.name)], y: means[metricIndex.get(y.name)] };
  }).filter((point) => point.x[0] != null && point.y[0] != null);
}

const span = (mean) => [mean[2] == null ? mean[0] : mean[2], mean[3] == null ? mean[0] : mean[3]];

function mark(point, px, py) {
  const kind = "mark v" + (point.i % 8);
  const shape = Math.floor(point.i / 8) % 3;
  if (shape === 0) return s("circle", { class: kind, cx: px, cy: py, r: 7 });
  const d = shape === 1 ? `M${px - 6.5},${py - 6.5}h13v13h-13z` : `M${px},${py - 9}l9,9l-9,9l-9,-9z`;
  return s("path", { class: kind, d });
}

// Labels beside their points, on the first side where they hide neither a point nor another label.
function placeLabel(text, px, py, taken, box) {
  const width = text.length * 7.8 + 4, height = 16;
  const places = [[8, -24], [8, 8], [-width - 8, -24], [-width - 8, 8], [12, -8], [-width - 12, -8], [-width / 2, -30], [-width / 2, 14]];
  const free = ([dx, dy]) => {
    const r = [px + dx, py + dy, px + dx + width, py + dy + height];
    return r[0] >= box[0] && r[2] <= box[2] && r[1] >= box[1] && r[3] <= box[3] &&
      taken.every((o) => r[2] < o[0] || r[0] > o[2] || r[3] < o[1] || r[1] > o[3]);
  };
  const place = places.find(free);
  if (!place) return null;
  taken.push([px + place[0], py + place[1], px + place[0] + width, py + place[1] + height]);
  return s("text", { class: "label", x: px + place[0] + 2, y: py + place[1] + 12 }, text);
}

function axisTitle(metric, narrow) {
  const name = named(metric, narrow ? metric.short : metric.title) + (metric.backbone ? " · " + metric.backbone : "");
  if (narrow) return name + (metric.higher === false ? ", reversed" : "");
  return name + (metric.higher === true ? " · higher is better" : metric.higher === false ? " · lower is better" : "");
}

function drawPlot() {
  const svg = $("plot-svg"), width = Math.max(300, $("plot").clientWidth), height = Math.round(Math.min(520, Math.max(340, width * 0.46)));
  const x = data.metrics[metricIndex.get(state.x)], y = data.metrics[metricIndex.get(state.y)];
  $("tip").hidden = true;
  $("references").textContent = x && y ? referenceText(x, y) : "";
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("height", height);
  const points = x && y ? plotPoints(x, y) : [];
  if (!points.length) {
    svg.replaceChildren(s("text", { class: "empty-plot", x: width / 2, y: height / 2, "text-anchor": "middle" },
      "No variant has a value of both metrics here."));
    return;
  }
  const box = [64, 28, width - 16, height - 52];
  const sx = scale(x, withReferences(x, points.flatMap((point) => span(point.x)), false), box[0], box[2]);
  const sy = scale(y, withReferences(y, points.flatMap((point) => span(point.y)), true), box[3], box[1]);
  const still = stillPlace(x, y, sx, sy, box);
  svg.replaceChildren(grid(sx, sy, box), axisTexts(x, y, box, width, height), boundOf(y) ? boundLine(y, sy, box, still) : s("g"),
    lines(points, sx, sy), still ? stillMark(still) : s("g"), marks(points, x, y, sx, sy, box, still));
}

function grid(sx, sy, box) {
  const across = ticks(sx.low, sx.high, Math.max(3, Math.round((box[2] - box[0]) / 110))), up = ticks(sy.low, sy.high, 6);
  const write = (value, digits) => (digits > 4 ? value.toExponential(1) : value.toFixed(digits)).replace("-", "−");
  return s("g", { class: "grid" },
    across.found.map((value) => [s("line", { x1: sx.at(value), x2: sx.at(value), y1: box[1], y2: box[3] }),
      s("text", { x: sx.at(value), y: box[3] + 20, "text-anchor": "middle" }, write(value, across.digits))]).flat(),
    up.found.map((value) => [s("line", { x1: box[0], x2: box[2], y1: sy.at(value), y2: sy.at(value) }),
      s("text", { x: box[0] - 8, y: sy.at(value) + 4, "text-anchor": "end" }, write(value, up.digits))]).flat());
}

function axisTexts(x, y, box, width, height) {
  const middle = (box[1] + box[3]) / 2;
  return s("g", { class: "axis" },
    s("text", { x: (box[0] + box[2]) / 2, y: height - 8, "text-anchor": "middle" }, axisTitle(x, width < 520) + " →"),
    s("text", { x: 14, y: middle, "text-anchor": "middle", transform: `rotate(-90 14 ${middle})` }, axisTitle(y, width < 520) + " →"),
    x.higher != null && y.higher != null ? [s("text", { class: "better", x: box[2], y: box[1] - 10, "text-anchor": "end" }, "better ↗")] : []);
}

function lines(points, sx, sy) {
  const series = new Map();
  for (const point of points) {
    const variant = data.variants[point.i];
    if (variant.tau[0] != null) series.set(variant.series, [...(series.get(variant.series) || []), point]);
  }
  const order = (a, b) => data.variants[a.i].tau[0] - data.variants[b.i].tau[0] || (data.variants[a.i].tau[1] || 0) - (data.variants[b.i].tau[1] || 0);
  return s("g", { class: "lines" }, [...series.values()].filter((members) => members.length > 1).map((members) =>
    s("polyline", { points: members.sort(order).map((point) => sx.at(point.x[0]) + "," + sy.at(point.y[0])).join(" ") })));
}

function marks(points, x, y, sx, sy, box, still) {
  const places = points.map((point) => [sx.at(point.x[0]), sy.at(point.y[0])]);
  const taken = places.map(([px, py]) => [px - 8, py - 8, px + 8, py + 8]);
  if (still) taken.push([still.px - (still.right ? 9 : 80), still.py - 9, still.px + (still.right ? 80 : 9), still.py + 9]);
  return s("g", {}, points.map((point, k) => {
    const [px, py] = places[k], name = data.variants[point.i].name, [xl, xh] = span(point.x), [yl, yh] = span(point.y);
    const words = `${name}: ${named(x, x.title)} ${format(point.x[0])}, ${named(y, y.title)} ${format(point.y[0])}`;
    const label = placeLabel(name, px, py, taken, box);
    const group = s("g", { class: "point", tabindex: 0, role: "img", "aria-label": words },
      s("path", { class: "bar-x v" + (point.i % 8), d: `M${sx.at(xl)},${py}H${sx.at(xh)}M${px},${sy.at(yl)}V${sy.at(yh)}` }),
      s("circle", { class: "halo", cx: px, cy: py, r: 16 }), mark(point, px, py), label ? [label] : []);
    const show = () => showTip(point, x, y, px, py);
    for (const event of ["mouseenter", "focus"]) group.addEventListener(event, show);
    for (const event of ["mouseleave", "blur"]) group.addEventListener(event, () => { $("tip").hidden = true; });
    return group;
  }));
}

function showTip(point, x, y, px, py) {
  const line = (metric, mean) => h("div", {}, h("span", {}, named(metric, metric.short)), h("b", {}, format(mean[0])),
    h("small", {}, (mean[2] == null ? "" : format(mean[2]) + " to " + format(mean[3]) + ", ") + "n = " + mean[1]));
  const tip = $("tip");
  tip.replaceChildren(h("strong", {}, swatch(point.i), data.variants[point.i].name), line(x, point.x), line(y, point.y));
  tip.hidden = false;
  const room = $("plot").clientWidth - tip.offsetWidth;
  tip.style.left = Math.max(0, Math.min(room, px + 18)) + "px";
  tip.style.top = Math.max(0, py - tip.offsetHeight - 12) + "px";
}
