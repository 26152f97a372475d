// Published means beside the runs: on the chart, below the table of runs, and how far a rerun is from them.
const publishedRows = () => (data.published && state.published && !state.category ? data.published.rows : []);
const publishedName = (row) => `${row.method} · ${row.table}`;
const certaintyText = { published: "", transcribed: "from public notes, not checked against the paper", unverified: "in doubt: look it up before relying on it" };

// Published points that have a value on both axes.
const publishedPoints = (x, y) => publishedRows().filter((row) => row.values[x.name] != null && row.values[y.name] != null);

function publishedMarks(x, y, sx, sy) {
  return s("g", { id: "published" }, publishedPoints(x, y).map((row) => {
    const px = sx.at(row.values[x.name]), py = sy.at(row.values[y.name]);
    const group = s("g", { class: "published" + (row.masks ? " masks" : ""), role: "img", tabindex: -1,
      "aria-label": `published, ${publishedName(row)}: ${x.title} ${format(row.values[x.name])}, ${y.title} ${format(row.values[y.name])}` },
    s("circle", { class: "halo", cx: px, cy: py, r: 9 }),
    row.masks ? s("path", { d: `M${px - 5},${py - 5}h10v10h-10zM${px - 5},${py - 5}l10,10M${px + 5},${py - 5}l-10,10` })
      : s("path", { d: `M${px},${py - 6}l5.5,10h-11z` }));
    group.addEventListener("pointerenter", () => showPublished(row, x, y, px, py));
    group.addEventListener("pointerleave", () => { $("tip").hidden = true; });
    return group;
  }));
}

function showPublished(row, x, y, px, py) {
  const line = (metric) => h("div", {}, h("span", {}, named(metric, metric.short)), h("b", {}, format(row.values[metric.name])));
  const tip = $("tip"), sure = certaintyText[row.certainty];
  tip.replaceChildren(h("strong", {}, row.method), h("div", {}, `published: ${row.table}`), row.masks ? h("div", {}, "is given masks") : "",
    line(x), line(y), sure ? h("small", {}, sure) : "");
  tip.hidden = false;
  tip.style.left = Math.max(0, Math.min($("plot").clientWidth - tip.offsetWidth, px + 14)) + "px";
  tip.style.top = Math.max(0, py - tip.offsetHeight - 10) + "px";
}

// Rows below the runs, by the column that sorts them.
function publishedTableRows(columns) {
  const shownIn = (row) => columns.some(({ metric }) => metric && row.values[metric.name] != null);
  const sorter = columns.find((column) => column.key === state.sort && column.metric), sign = state.dir === "down" ? -1 : 1;
  const rank = (row) => { const value = sorter && row.values[sorter.metric.name]; return value == null ? Infinity : sign * value; };
  const list = publishedRows().filter(shownIn);
  if (sorter) list.sort((p, q) => { const a = rank(p), b = rank(q); return a === b ? 0 : a < b ? -1 : 1; });
  return list.map((row) => h("tr", { class: "reference" },
    h("th", { scope: "row", title: certaintyText[row.certainty] || null }, h("span", { class: "variant-name" }, row.method),
      h("span", { class: "badge plain" }, row.table), row.masks ? h("span", { class: "badge plain" }, "given masks") : null),
    h("td", { class: "number" }, "–"),
    columns.map(({ metric }) => h("td", { class: "number" + (metric && row.values[metric.name] != null ? "" : " undefined") },
      metric && row.values[metric.name] != null ? h("span", { class: "mean" }, format(row.values[metric.name])) : "–"))));
}

function publishedText(x, y) {
  if (!data.published) return "";
  const count = publishedPoints(x, y).length;
  if (!count) return state.category ? "Published means are of all categories." : "";
  return `Open triangles are ${count} published means, crossed squares those of methods that are given masks; the table stands at each. No intervals were published.`;
}

// Each row of the published table with its rerun, or why there is none.
function publishedSection(found) {
  if (!found) return [];
  const figures = found.figures.map(([column, factor]) => ({ metric: metricOf(column), column, factor })).filter(({ metric }) => metric);
  const ours = found.rows.filter((row) => row.verdict), others = found.rows.filter((row) => !row.verdict);
  const heads = figures.map(({ metric, factor }) => metric.short.replace("pie ", "") + " " + arrow(metric) + (factor === 1 ? "" : ` × ${factor.toLocaleString("en")}`));
  const written = (value, factor) => (value == null ? "–" : (value * factor).toFixed(2).replace("-", "−"));
  const cell = (row, { column, factor }) => {
    const mean = row.means && row.means[column];
    return h("td", { class: "number" }, h("span", { class: "mean" }, written(row.values[column], factor)),
      mean ? h("span", { class: "interval" }, `here ${written(mean[0], factor)}`) : null, mean ? h("span", { class: "count" }, `n = ${mean[1]}`) : null);
  };
  const verdict = (row) => h("td", { class: "verdict" }, h("span", { class: "badge" + (row.verdict === "reproduced" ? "" : " plain") }, row.verdict),
    row.why ? h("span", { class: "count" }, row.why) : null, row.run != null ? h("span", { class: "count" }, data.entries[row.run].name) : null);
  const sure = (row) => (row.certainty === "published" ? null : h("span", { class: "noted", title: certaintyText[row.certainty] }, row.certainty === "unverified" ? "?" : "†"));
  const canary = found.canary.map((one) => `${data.entries[one.run].name}: ${one.mean.toFixed(2)} over ${one.count} images, ${one.verdict}`).join("; ");
  return [h("h2", {}, "Published tables"), h("p", { class: "note lead" }, "PIE-Bench (arXiv 2310.01506): each row of its table beside a run with its settings, reproduced, off by how much, or not run. " +
    "The protocol is complete; it is not verified here with the published weights."),
  h("ul", { class: "note rules" }, found.rules.map((rule) => h("li", {}, rule + ".")),
    h("li", {}, canary ? `Canary, CLIP of the source images, which no method changes: ${found.canaryValue[0].toFixed(2)} ± ${found.canaryValue[1]} is quoted in one public thread. ${canary}.` : "No run has the canary, pie_clip_source.")),
  plainTable(["Method", "Verdict", ...heads], ours.map((row) => h("tr", {}, h("th", { scope: "row" }, row.method, sure(row)), verdict(row), figures.map((figure) => cell(row, figure)))), "Published table"),
  h("h3", {}, "Further published means"), h("p", { class: "note lead" }, "The same method differs between papers: each is of the table that is named. † from public notes, not checked against the paper; ? in doubt."),
  plainTable(["Method", "Table", ...heads], others.map((row) => h("tr", {}, h("th", { scope: "row" }, row.method, sure(row)), h("td", {}, row.table + (row.masks ? ", given masks" : "")), figures.map((figure) => cell(row, figure)))), "Further published means")];
}
