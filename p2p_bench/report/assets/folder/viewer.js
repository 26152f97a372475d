// One edit, enlarged, with every score; the arrow keys go through the list it was opened from.
const PICTURE_NAMES = { original: "real image", vae: "through the VAE and back", target: "edit", heatSource: "attention, source",
  heatTarget: "attention, edit", heatTokens: "attention to every token" };
let viewed = null, viewedList = [];

function largeFigure(number, name) {
  const file = number == null ? null : thumbs[number];
  if (!file) return null;
  return h("figure", {}, h("img", { src: "thumbs/" + file[0], alt: name, class: "large" + (file[1] ? "" : " exact") }),
    h("figcaption", {}, name, file[1] ? h("span", {}, " · ", h("a", { href: file[1] }, "full size")) : null));
}

function stepViewer(by) {
  const next = viewedList[viewedList.indexOf(viewed) + by];
  if (next) openViewer(next, viewedList);
}

function openViewer(row, list) {
  viewed = row;
  viewedList = list;
  state.edit = rowName(row);
  writeHash();
  const viewer = $("viewer"), sample = data.samples[row.sample];
  const button = (label, name, action) => h("button", { type: "button", "aria-label": name, title: name, onclick: action }, label);
  const same = pictureOf(row, "original") === pictureOf(row, "source");
  viewer.replaceChildren(
    h("div", { class: "viewer-head" }, h("h2", {}, entrySwatch(row.entry), data.entries[row.entry].name, h("small", { class: "mono" }, " " + sample[0])),
      h("span", { class: "viewer-buttons" }, button("←", "previous edit", () => stepViewer(-1)), button("→", "next edit", () => stepViewer(1)), button("✕", "close", () => viewer.close()))),
    h("div", { class: "prompts" }, h("p", {}, h("span", { class: "role" }, "source"), promptSpan(sample[3], "from")), h("p", {}, h("span", { class: "role" }, "target"), promptSpan(sample[4], "to"))),
    row.error == null ? h("div", { class: "figures" }, data.pictures.filter((kind) => !(same && kind === "original")).map((kind) => largeFigure(pictureOf(row, kind), PICTURE_NAMES[kind] || kind)))
      : h("p", { class: "reason wide-reason" }, h("b", {}, "failed"), " ", row.error),
    h("dl", { class: "pairs all-scores" }, measured.map((metric) => h("div", {}, h("dt", {}, named(metric, metric.title) + " " + arrow(metric), " ", backbone(metric)),
      h("dd", {}, format(scoreOf(row, metric.name)))))));
  if (!viewer.open) viewer.showModal();
  viewer.scrollTop = 0;
}

// Opens the edit that the address names, once its row is here.
function openNamed() {
  const row = state.edit ? rows.find((one) => rowName(one) === state.edit) : null;
  if (row) openViewer(row, rowsOf.get(row.entry));
}

function installViewer() {
  const viewer = $("viewer");
  viewer.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") stepViewer(-1);
    if (event.key === "ArrowRight") stepViewer(1);
  });
  viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });
  viewer.addEventListener("close", () => { state.edit = ""; writeHash(); });
}
