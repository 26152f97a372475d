// What p2p_bench computed beforehand: curves, auto-tau, methods compared.
const meanText = (mean) => (mean[0] == null ? "–" : format(mean[0]));
const intervalText = (mean) => (mean[2] == null ? null : h("span", { class: "interval" }, format(mean[2]) + " to " + format(mean[3])));
const meanTd = (mean, best) => h("td", { class: "number" + (best ? " best" : "") }, h("span", { class: "mean" }, meanText(mean)), intervalText(mean));
const LEFT = ["Table", "Verdict", "Trial", "Setting", "Method", "Metric", "Category", "Tau", "Taus chosen, cross/self (edits)"];
const plainTable = (head, body, label) => h("div", { class: "scroll card", tabindex: 0, role: "region", "aria-label": label },
  h("table", { class: "means" }, h("thead", {}, h("tr", {}, head.map((name) => h("th", { scope: "col", class: LEFT.includes(name) ? null : "number" }, name)))), h("tbody", {}, body)));
const metricHeading = (name) => { const metric = metricOf(name); return h("span", {}, metric.short + " " + arrow(metric), h("span", { class: "unit" }, metric.unit, " ", backbone(metric), boundNote(metric, ""))); };

function drawTables() {
  const target = $("view-tables"), found = data.tables;
  if (!found) {
    target.replaceChildren(...publishedSection(data.published), h("p", { class: "card empty" }, "No metric has a value, so there is nothing to analyse."));
    return;
  }
  target.replaceChildren(...publishedSection(data.published), ...searchSection(data.search), ...curvesSection(found), ...autoSection(found), ...comparedSection(found));
}

function searchSection(found) {
  if (!found) return [];
  const { objectives, parameters, trials, failed, front, importance } = found;
  const share = (value) => h("td", { class: "number" }, value == null ? "–" : Math.round(100 * value) + " %");
  return [h("h2", {}, "Search"), h("p", { class: "note lead" },
    `${trials} trials, ${failed} of them without ${objectives.length > 1 ? "all objectives" : "the objective"}. Front: the trials that no other beats. ` +
    "Importance: the part of an objective's variance over the trials that one setting alone explains (epsilon squared, numbers in four groups of equal size). A search tries good settings more often, so it tells what mattered here, not everywhere."),
  plainTable(["Trial", ...parameters, ...objectives.map(metricHeading)], front.map(({ entry, values }) => h("tr", {},
    h("th", { scope: "row" }, data.entries[entry].name), values.map((value) => h("td", { class: "number" }, value)),
    objectives.map((name) => meanTd(data.entries[entry].means[data.metrics.findIndex((metric) => metric.name === name)])))), "Front"),
  plainTable(["Setting", ...objectives.map((name) => metricOf(name).short)], parameters.map((name, k) => h("tr", {},
    h("th", { scope: "row" }, name), importance[k].map(share))), "Importance")];
}

function curvesSection(found) {
  const [x, y] = data.axes ? [metricOf(data.axes.x), metricOf(data.axes.y)] : [];
  if (!found.curves) return [h("h2", {}, "Curves"), h("p", { class: "note" }, "All runs have the same mean, so no area can be told.")];
  const { rows: curves, x: [x0, x1], y: [y0, y1] } = found.curves;
  const order = curves.map((_, k) => k).sort((p, q) => curves[q].area[0] - curves[p].area[0]);
  const best = (value, all) => all.length > 1 && format(value) === format(Math.max(...all));
  return [h("h2", {}, "Curves"), h("p", { class: "note lead" },
    `Editability (${x.title}, ${format(x0)} to ${format(x1)}) against fidelity (${y.title}, ${format(y0)} to ${format(y1)}), as shares of that rectangle. It spans the means of all runs, from no edit and up to the VAE's bound where these are known. ` +
    "Hypervolume: what the method's points dominate. Area: under its front joined by lines; interval by bootstrap over source scenes."),
  plainTable(["Method", "Settings", "Hypervolume ↑", "Area under the front ↑"], order.map((k) => h("tr", {},
    h("th", { scope: "row" }, swatch(k), found.methods[k].name), h("td", { class: "number" }, String(found.methods[k].entries.length)),
    meanTd([curves[k].hypervolume, 0, null, null], best(curves[k].hypervolume, curves.map((curve) => curve.hypervolume))),
    meanTd(curves[k].area, best(curves[k].area[0], curves.map((curve) => curve.area[0]))))), "Curves")];
}

function autoSection(found) {
  if (!found.autoTau.length) return [];
  const judge = found.columns[2] ? metricOf(found.columns[2]).title : "";
  const body = found.autoTau.flatMap((one) => one.ways.map((way, k) => h("tr", { class: k ? null : "first" },
    h("th", { scope: "row" }, k ? null : [swatch(found.methods.findIndex((method) => method.name === one.method)), one.method]),
    h("td", {}, way.name), way.means.map((mean) => meanTd(mean)),
    h("td", {}, way.taus.map(([tau, count]) => (way.taus.length > 1 ? `${tau} (${count})` : tau)).join(" · ")),
    judge ? h("td", { class: "number" }, way.name === "auto-tau" && one.gain ? gainText(one.gain) : "") : null)));
  return [h("h2", {}, "Auto-tau"), h("p", { class: "note lead" }, "Rule: " + found.rule + ". " + (judge
    ? `Judged by ${judge}, which the rule does not see; the best fixed tau and the oracle are chosen by it. The oracle takes each sample's best tau: no choice among these taus can do better.`
    : "These rows hold no exact answer, so there is no oracle; the fixed tau follows the same rule on the means.")),
  plainTable(["Method", "Tau", ...found.columns.map(metricHeading), "Taus chosen, cross/self (edits)", ...(judge ? ["Gain over fixed"] : [])], body, "Auto-tau")];
}

function gainText(gain) {
  const [value, , low, high] = gain.difference;
  return [h("span", { class: "mean" }, signed(value)), low == null ? null : h("span", { class: "interval" }, signed(low) + " to " + signed(high)),
    h("span", { class: "count" }, "p " + formatP(gain.p))];
}

const signed = (value) => (value == null ? "–" : (value > 0 ? "+" : "") + format(value));

function comparedSection(found) {
  if (!found.compared) return [];
  const { best, by, others, rows: tests } = found.compared;
  const sections = found.columns.map((name) => [name, tests.filter((test) => test.column === name)]).filter(([, part]) => part.length);
  return [h("h2", {}, "Methods compared"), h("p", { class: "note lead" },
    `Each method, with its auto-tau where it has several, minus ${best}, the best by ${metricOf(by).title}, on the samples both have. ` +
    "p: sign-flip permutation test on source scenes; corrected by Holm over the tests of one metric. Effect: mean difference in standard deviations." +
    (others ? ` ${others} more methods with a lower mean are left out.` : "")),
  ...sections.flatMap(([name, part]) => [h("h3", {}, metricOf(name).title), plainTable(
    ["Method", "Category", "Difference", "Scenes", "Effect", "p", "p, Wilcoxon", "p, Holm"], part.map((test) => h("tr", { class: test.holm < 0.05 ? "clear" : null },
      h("th", { scope: "row" }, swatch(found.methods.findIndex((method) => method.name === test.method)), test.method), h("td", {}, test.category || "all"),
      h("td", { class: "number" }, h("span", { class: "mean" }, signed(test.difference[0])), intervalText(test.difference)), h("td", { class: "number" }, String(test.groups)),
      h("td", { class: "number" }, signed(test.effect)), h("td", { class: "number" }, formatP(test.p)), h("td", { class: "number" }, formatP(test.wilcoxon)),
      h("td", { class: "number holm" }, formatP(test.holm)))), metricOf(name).title)])];
}
