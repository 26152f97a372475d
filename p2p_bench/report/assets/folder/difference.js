// Two chosen runs on the samples both have: every metric with its tests, categories, and the largest changes.
function pairedRows() {
  const second = new Map((rowsOf.get(Number(state.b)) || []).map((row) => [row.sample, row]));
  return (rowsOf.get(Number(state.a)) || []).filter((row) => second.has(row.sample) && inCategory(row)).map((row) => [row, second.get(row.sample)]);
}

const valuePairs = (pairs, name) => pairs.map(([a, b]) => [scoreOf(a, name), scoreOf(b, name), data.samples[a.sample][0]]).filter(([a, b]) => a != null && b != null);

function drawDifference() {
  const choices = data.entries.map((entry, i) => [String(i), entry.name]);
  options($("run-a"), choices, state.a);
  options($("run-b"), choices, state.b);
  const scores = measured.filter((metric) => metric.role !== "cost");
  metricOptions($("diff-metric"), scores, state.metric);
  const target = $("difference");
  if (!loaded()) return target.replaceChildren(h("p", { class: "note" }, "Loading the rows …"));
  const pairs = pairedRows();
  if (state.a === state.b || !pairs.length) {
    return target.replaceChildren(h("p", { class: "card empty" }, state.a === state.b ? "Choose two different runs." : "These two runs have no sample in common here."));
  }
  const tests = measured.map((metric) => [metric, comparePaired(valuePairs(pairs, metric.name))]).filter(([, test]) => test);
  target.replaceChildren(differenceTable(tests, "Metric", ([metric]) => [metric.title + " " + arrow(metric), " ", backbone(metric)], ([metric]) => metric),
    h("p", { class: "note" }, "Differences are A minus B. Interval: bootstrap over source scenes. p: sign-flip permutation test; corrected by Holm over the scores of this table. Effect: mean difference in standard deviations. A green difference favours A, a red one B, where the corrected p is below 0.05."),
    ...categoryDifferences(pairs), ...largestChanges(pairs));
}

function differenceTable(tests, first, heading, metricFor) {
  const scoresOnly = tests.map((one) => (metricFor(one).role === "cost" ? null : one[1].p)), corrected = holm(scoresOnly);
  return plainTable([first, "A", "B", "A − B", "Pairs", "Scenes", "Effect", "p", "p, Wilcoxon", "p, Holm"], tests.map((one, k) => {
    const test = one[1], metric = metricFor(one), clear = corrected[k] != null && corrected[k] < 0.05 && metric.higher != null;
    const kind = clear ? ((test.difference > 0) === (metric.higher === true) ? " gain" : " loss") : "";
    const number = (text, extra) => h("td", { class: "number" + (extra || "") }, text);
    const tested = metric.role === "cost" ? ["–", "–", "–", "–"] : [signed(test.effect), formatP(test.p), formatP(test.wilcoxon), formatP(corrected[k])];
    return h("tr", { "data-test": first === "Metric" ? metric.name : one[0] }, h("th", { scope: "row" }, heading(one)), number(format(test.a)), number(format(test.b)),
      h("td", { class: "number" + kind }, h("span", { class: "mean" }, signed(test.difference)), test.low == null ? null : h("span", { class: "interval" }, signed(test.low) + " to " + signed(test.high))),
      number(String(test.pairs)), number(String(test.groups)), tested.map((text) => number(text)));
  }), first + " by " + first);
}

function categoryDifferences(pairs) {
  const metric = metricOf(state.metric);
  const names = [...new Set(pairs.map(([row]) => data.samples[row.sample][2]))].filter(Boolean).sort();
  if (names.length < 2 || !metric) return [];
  const tests = names.map((name) => [name, comparePaired(valuePairs(pairs.filter(([row]) => data.samples[row.sample][2] === name), metric.name))]).filter(([, test]) => test);
  return [h("h3", {}, "By category: " + metric.title), differenceTable(tests, "Category", ([name]) => name, () => metric)];
}

// Samples where the chosen metric changed most, in A's favour first and in B's last.
function largestChanges(pairs) {
  const metric = metricOf(state.metric), sign = metric && metric.higher === false ? -1 : 1;
  const changed = pairs.map(([a, b]) => ({ a, b, by: metric && scoreOf(a, metric.name) != null && scoreOf(b, metric.name) != null ? scoreOf(a, metric.name) - scoreOf(b, metric.name) : null }))
    .filter((one) => one.by != null).sort((p, q) => sign * (q.by - p.by));
  const some = Math.min(6, Math.ceil(changed.length / 2)), list = changed.flatMap(({ a, b }) => [a, b]);
  const card = ({ a, b, by }) => h("article", { class: "card edit" }, h("div", { class: "pair three" },
    h("figure", {}, thumb(pictureOf(a, "source"), "source", () => openViewer(a, list)), h("figcaption", {}, "source")),
    h("figure", {}, thumb(pictureOf(a, "target"), "A", () => openViewer(a, list)), h("figcaption", {}, "A " + format(scoreOf(a, metric.name)))),
    h("figure", {}, thumb(pictureOf(b, "target"), "B", () => openViewer(b, list)), h("figcaption", {}, "B " + format(scoreOf(b, metric.name))))),
  h("p", { class: "entry-name" }, signed(by)), promptSpan(data.samples[a.sample][4], "to"), sampleHead(data.samples[a.sample]));
  return [h("h3", {}, "Most in favour of A"), h("div", { class: "cards wide" }, changed.slice(0, some).map(card)),
    h("h3", {}, "Most in favour of B"), h("div", { class: "cards wide" }, changed.slice(-some).reverse().map(card))];
}
