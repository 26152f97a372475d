// One edit, enlarged, with every score; the arrow keys go through the edits the gallery shows.
let viewed = null;
const editName = (sample, edit) => [edit.variant, sample.targetIndex, sample.id].join(":");

function neighbours() {
  const shown = new Set(visible());
  return chosenSamples().flatMap((sample) => sample.edits.filter((edit) => shown.has(edit.variant) && !edit.failed)
    .sort((a, b) => a.variant - b.variant).map((edit) => ({ sample, edit })));
}

function step(by) {
  const all = neighbours();
  const next = all[all.findIndex((one) => one.edit === viewed.edit) + by];
  if (next) openViewer(next.sample, next.edit);
}

function large(number, name) {
  if (number == null) return null;
  const [uri, link, note] = data.pictures[number];
  const image = uri ? h("img", { src: uri, alt: name, class: "large" + (link ? "" : " exact") }) : h("span", { class: "no-picture" }, note);
  return h("figure", {}, image, h("figcaption", {}, name, link ? h("span", {}, " · ", h("a", { href: link }, "full size")) : null));
}

function openViewer(sample, edit) {
  viewed = { sample, edit };
  state.edit = editName(sample, edit);
  writeHash();
  const viewer = $("viewer"), pictures = edit.pictures, variant = data.variants[edit.variant];
  const button = (label, name, action) => h("button", { type: "button", "aria-label": name, title: name, onclick: action }, label);
  viewer.replaceChildren(
    h("div", { class: "viewer-head" }, h("h2", {}, swatch(edit.variant), variant.name, h("small", { class: "mono" }, " " + sample.id)),
      h("span", { class: "viewer-buttons" }, button("←", "previous edit", () => step(-1)), button("→", "next edit", () => step(1)), button("✕", "close", () => viewer.close()))),
    prompts(sample),
    h("div", { class: "figures" },
      pictures.original !== pictures.source ? large(pictures.original, "real image") : null,
      large(pictures.vae, "through the VAE and back"),
      large(pictures.source, sourceName(edit)), large(pictures.target, "edit"), large(pictures.difference, "difference"),
      large(pictures.heatSource, "attention, source"), large(pictures.heatTarget, "attention, edit"),
      large(pictures.heatTokens, "attention to every token")),
    h("dl", { class: "pairs all-scores" }, scored.map((metric) => h("div", {}, h("dt", {}, named(metric, metric.title) + " " + arrow(metric), " ", backbone(metric)),
      h("dd", {}, format(scoreOf(edit, metric.name)))))));
  if (!viewer.open) viewer.showModal();
  viewer.scrollTop = 0;
}

$("viewer").addEventListener("keydown", (event) => {
  if (event.key === "ArrowLeft") step(-1);
  if (event.key === "ArrowRight") step(1);
});
$("viewer").addEventListener("click", (event) => { if (event.target === $("viewer")) $("viewer").close(); });
$("viewer").addEventListener("close", () => { state.edit = ""; writeHash(); });

// Opens the edit that the address names, if there is one.
function openNamed() {
  for (const sample of state.edit ? data.samples : []) {
    const edit = sample.edits.find((one) => !one.failed && editName(sample, one) === state.edit);
    if (edit) return openViewer(sample, edit);
  }
}
