// The filters at the top and the table of all runs: sorted by a click on a heading.
function drawFilters() {
  options($("category"), [["", "all"], ...data.categories.map((name) => [name, name])], state.category);
  $("category").parentElement.hidden = data.categories.length < 2;
  $("query").value = state.q;
  const chosen = selection();
  $("selected").hidden = !chosen.size;
  $("selected-count").textContent = `${chosen.size} of ${data.entries.length} selected`;
  metricOptions($("axis-x"), measured, state.x);
  metricOptions($("axis-y"), measured, state.y);
  $("all-metrics").checked = state.all;
  $("with-published").checked = state.published;
  $("with-published").parentElement.hidden = !data.published;
  for (const tab of $("tabs").children) tab.setAttribute("aria-selected", String(tab.dataset.view === state.view));
  const active = $("tabs").querySelector('[aria-selected="true"]'), frame = active.closest(".bar-in");
  frame.scrollLeft = active.offsetLeft - frame.clientWidth / 3; // on a narrow screen the tabs scroll
  for (const view of VIEWS) $("view-" + view).hidden = view !== state.view;
}

// Columns of the table: metrics, costs, then what no metric says.
function tableColumns() {
  const metrics = measured.filter((metric) => metric.role === "cost" || state.all || metric.main);
  const columns = metrics.map((metric) => ({
    key: metric.name, metric, value: (i) => meanOf(i, metric.name)[0],
    cell: (i, best) => meanTableCell(metric, meanOf(i, metric.name), data.entries[i].counts[0], best),
  }));
  const share = { key: "share", title: "rows spent / alone", value: (i) => data.entries[i].share[0],
    cell: (i) => h("td", { class: "number" }, format(data.entries[i].share[0])) };
  const cache = { key: "cached", title: "inversions", value: (i) => data.entries[i].cached,
    cell: (i) => h("td", { class: "number" }, cacheText(data.entries[i])) };
  const failed = { key: "failed", title: "failed", value: (i) => data.entries[i].counts[1],
    cell: (i) => h("td", { class: "number" + (data.entries[i].counts[1] ? " failed-count" : "") }, String(data.entries[i].counts[1])) };
  return [...columns, ...(data.entries.some((entry) => entry.share[0] != null) ? [share] : []),
    ...(data.entries.some((entry) => entry.cold + entry.cached > 0) ? [cache] : []), ...(data.entries.some((entry) => entry.counts[1]) ? [failed] : [])];
}

const cacheText = (entry) => [entry.cold ? entry.cold + " cold" : "", entry.cached ? entry.cached + " cached" : ""].filter(Boolean).join(", ") || "–";

function meanTableCell(metric, mean, count, best) {
  const [value, n, low, high] = mean;
  if (value == null) return h("td", { class: "number undefined" }, "–");
  const cell = h("td", { class: "number" + (best ? " best" : "") }, h("span", { class: "mean" }, format(value)));
  if (low != null && high != null) cell.append(h("span", { class: "interval" }, format(low) + " to " + format(high)));
  if (n !== count && !state.category) cell.append(h("span", { class: "count" }, "n = " + n));
  return cell;
}

function tableHead(columns) {
  const heading = (key, label, extra, title) => h("th", { scope: "col", class: key === "name" ? null : "number", title,
    "aria-sort": state.sort === key ? (state.dir === "down" ? "descending" : "ascending") : "none" },
    h("button", { type: "button", class: "sorter", "data-sort": key, onclick: () => sortTable(key) }, label,
      h("span", { class: "sort-mark", "aria-hidden": "true" }, state.sort === key ? (state.dir === "down" ? " ▾" : " ▴") : "")), extra || "");
  return h("thead", {}, h("tr", {}, heading("name", "Run"), h("th", { scope: "col", class: "number" }, "Edits"),
    columns.map(({ key, metric, title }) => (metric
      ? heading(key, [metric.short, " ", h("span", { class: "arrow" }, arrow(metric))],
        h("span", { class: "unit" }, metric.unit, " ", backbone(metric), noted(metric), boundNote(metric)), metric.title + (metric.version ? " · version " + metric.version : ""))
      : heading(key, title)))));
}

function sortTable(key) {
  const first = key === "name" ? "up" : "down", other = first === "up" ? "down" : "up";
  set({ sort: key, dir: state.sort === key && state.dir === first ? other : first }, drawTable);
  $("runs").querySelector(`[data-sort="${CSS.escape(key)}"]`).focus();
}

function sortedEntries(columns) {
  const entries = shown();
  const sign = state.dir === "down" ? -1 : 1;
  if (state.sort === "name") return entries.sort((i, j) => sign * data.entries[i].name.localeCompare(data.entries[j].name, "en", { numeric: true }));
  const column = columns.find((one) => one.key === state.sort);
  if (!column) return entries;
  const rank = (i) => { const value = column.value(i); return value == null ? Infinity : sign * value; };
  return entries.sort((i, j) => { const a = rank(i), b = rank(j); return a === b ? 0 : a < b ? -1 : 1; });
}

function drawTable() {
  const columns = tableColumns(), entries = sortedEntries(columns);
  const bests = columns.map(({ metric }) => (metric ? bestOf(metric, entries.map((i) => meanOf(i, metric.name)[0])) : null));
  const body = h("tbody", {}, entries.map((i) => {
    const entry = data.entries[i], name = h("span", { class: "variant-name" }, entry.name);
    return h("tr", { "data-entry": i }, h("th", { scope: "row", title: entry.run },
      entrySwatch(i), entry.link ? h("a", { href: entry.link }, name) : name, entry.plain ? h("span", { class: "badge plain" }, entry.plain) : null),
    h("td", { class: "number" }, entry.counts[0].toLocaleString("en")),
    columns.map(({ cell, metric }, k) => cell(i, bests[k] != null && format(meanOf(i, metric.name)[0]) === bests[k])));
  }));
  body.append(...referenceRows(columns.map((column) => column.metric)), ...publishedTableRows(columns));
  $("runs").replaceChildren(tableHead(columns), body);
  $("runs-shown").textContent = entries.length === data.entries.length ? `${entries.length} runs` : `${entries.length} of ${data.entries.length} runs`;
}
