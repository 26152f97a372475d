// The gallery: every edit of the runs shown, filtered and sorted.
function galleryRows() {
  const chosen = state.entry === "" ? new Set(shown()) : new Set([Number(state.entry)]);
  const list = rows.filter((row) => {
    if (!chosen.has(row.entry) || !inCategory(row)) return false;
    const sample = data.samples[row.sample];
    return !state.find || matchesWords([sample[0], sample[2], promptText(sample[3]), promptText(sample[4]), row.error == null ? "" : "failed " + row.error].join(" "), state.find);
  });
  return state.gsort ? sortRows(list, state.gsort, state.order) : list;
}

function drawGallery() {
  options($("entry"), [["", "all shown"], ...found().map((i) => [String(i), data.entries[i].name])], state.entry);
  metricOptions($("gsort"), measured.filter((metric) => metric.higher != null), state.gsort, "as run");
  $("order").value = state.order;
  $("find").value = state.find;
  if (!loaded()) {
    $("gallery-shown").textContent = `loading, ${filesLeft} files to come`;
    return $("edits").replaceChildren();
  }
  const list = galleryRows(), names = [...new Set([state.gsort, state.x, state.y].filter(Boolean))];
  $("gallery-shown").textContent = `${list.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")} edits`;
  drawList($("edits"), list, (row) => editCard(row, names, list));
  if (!list.length) $("edits").replaceChildren(h("p", { class: "card empty" }, "No edit matches."));
}
