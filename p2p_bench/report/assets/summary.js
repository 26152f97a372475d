// The tables of means: all variants, and one metric by category.
function range(metric, means) {
  const values = means.flatMap((mean) => [mean[0], mean[2], mean[3]]).filter((value) => value != null);
  return [Math.min(...values), Math.max(...values)];
}

function meanCell(mean, count, bounds, isBest) {
  const [value, n, low, high] = mean;
  if (value == null) return h("td", { class: "number undefined" }, "–");
  const cell = h("td", { class: "number" + (isBest ? " best" : "") }, h("span", { class: "mean" }, format(value)));
  if (low != null && high != null && bounds[1] > bounds[0]) {
    const place = (x) => 100 * (x - bounds[0]) / (bounds[1] - bounds[0]);
    const line = h("i"), dot = h("b");
    line.style.left = place(low) + "%";
    line.style.width = place(high) - place(low) + "%";
    dot.style.left = place(value) + "%";
    cell.append(h("span", { class: "scale", "aria-hidden": "true" }, line, dot));
    cell.append(h("span", { class: "interval" }, format(low) + " to " + format(high)));
  }
  if (n !== count) cell.append(h("span", { class: "count" }, "n = " + whole(n)));
  return cell;
}

function metricHead(metric) {
  const notes = [metric.unit, metric.higher === true ? "higher is better" : metric.higher === false ? "lower is better" : ""];
  const title = [metric.title, notes.filter(Boolean).join(", "), metric.version ? "version " + metric.version : ""];
  return h("th", { scope: "col", class: "number role-" + metric.role, title: title.filter(Boolean).join(" · ") },
    h("span", { class: "metric-name" }, metric.short + " ", h("span", { class: "arrow" }, arrow(metric))),
    h("span", { class: "unit" }, metric.unit, " ", backbone(metric), noted(metric), boundNote(metric)));
}

// A row above the metrics' names that says what they are about.
function groupRow(metrics) {
  const titles = { editability: "What changes", fidelity: "What stays", cost: "What it costs" };
  const groups = [];
  for (const metric of metrics) {
    const title = titles[metric.role] || "Also measured", last = groups[groups.length - 1];
    if (last && last.title === title) last.size += 1;
    else groups.push({ title, size: 1 });
  }
  return h("tr", { class: "groups" }, h("th", {}), h("th", {}), groups.map(({ title, size }) =>
    h("th", { scope: "colgroup", colspan: size }, h("span", {}, title))));
}

function drawMeans() {
  const shown = visible();
  const metrics = state.all ? scored : scored.filter((metric) => metric.main);
  const columns = metrics.map((metric) => {
    const means = shown.map((i) => (data.variants[i].means[state.category] || [])[metricIndex.get(metric.name)]);
    return { metric, means, bounds: range(metric, means), best: bestOf(metric, means.map((mean) => mean[0])) };
  });
  const head = h("thead", {}, groupRow(metrics), h("tr", {}, h("th", { scope: "col" }, "Variant"),
    h("th", { scope: "col", class: "number" }, "Edits"), metrics.map(metricHead)));
  const body = h("tbody", {}, shown.map((i, row) => {
    const variant = data.variants[i];
    const [count, failed] = variant.counts[state.category];
    const settings = Object.entries(variant.settings).map(([name, text]) => name + ": " + text).join("\n");
    return h("tr", {},
      h("th", { scope: "row", title: settings }, swatch(i), h("span", { class: "variant-name" }, variant.name), variant.plain ? h("span", { class: "badge plain" }, variant.plain) : null),
      h("td", { class: "number" }, whole(count), failed ? h("span", { class: "failed" }, whole(failed) + " failed") : null),
      columns.map(({ means, bounds, best }) => meanCell(means[row], count, bounds, format(means[row][0]) === best)));
  }));
  body.append(...referenceRows(metrics));
  $("means").replaceChildren(head, body);
}

function drawCategories() {
  const names = data.categories.filter((name) => name !== "");
  const metric = data.metrics[metricIndex.get(state.metric)];
  $("by-category").hidden = names.length < 2 || !metric;
  if ($("by-category").hidden) return;
  const index = metricIndex.get(state.metric);
  const shown = visible();
  const bounds = range(metric, names.flatMap((name) => shown.map((i) => data.variants[i].means[name][index])));
  const head = h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Category"),
    shown.map((i) => h("th", { scope: "col", class: "number" }, swatch(i), data.variants[i].name)),
    data.references.map((one) => h("th", { scope: "col", class: "number" }, one.name))));
  const body = h("tbody", {}, [...names, ""].map((name) => {
    const means = shown.map((i) => data.variants[i].means[name][index]);
    const best = bestOf(metric, means.map((mean) => mean[0]));
    return h("tr", { class: name === "" ? "total" : state.category === name ? "chosen" : null }, h("th", { scope: "row" }, name || "All"),
      shown.map((i, k) => meanCell(means[k], data.variants[i].counts[name][0], bounds, format(means[k][0]) === best)),
      data.references.map((one) => referenceCell(metric, referenceMean(one.kind, metric.name, name), one.counts[name] || 0)));
  }));
  $("categories").replaceChildren(head, body);
}
