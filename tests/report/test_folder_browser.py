"""The report over many runs in a headless browser: it sorts, filters, brushes and compares."""

import json
import math
import re
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from p2p_bench.report import folder, write_folder_report
from p2p_bench.report.published import published_rows
from p2p_bench.stats import compare_paired, holm
from tests.report.fake_run import NO_EDIT, VAE, fake_run
from tests.report.pie_run import pie_run
from tests.report.test_browser import ATTACK, BROWSER, dom
from tests.report.test_folder import FAILED, TAUS, sweep

pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs chromium, chromium-browser or google-chrome")

HELPERS = """
const fire = (id, value, type = "change") => {
  const control = document.getElementById(id);
  control.value = value;
  control.dispatchEvent(new Event(type));
};
const key = (name, at = document.body) =>
  at.dispatchEvent(new KeyboardEvent("keydown", { key: name, bubbles: true }));
const all = (selector) => [...document.querySelectorAll(selector)];
const texts = (selector) => all(selector).map((node) => node.textContent.trim());
const names = () => texts("#runs tbody .variant-name");
const out = {};
const soon = () => new Promise((done) => setTimeout(done, 50));
const waiting = setInterval(async () => {
  if (document.documentElement.dataset.loaded !== "1") return;
  clearInterval(waiting);
  try { await act(); } catch (error) { out.error = String(error) + error.stack; }
  document.title = JSON.stringify(out);
}, 20);
"""


def act(page: Path, profile: Path, actions: str, view: str = "", width: int = 1300) -> dict[str, Any]:
    """What a script finds in a copy of the page without its policy, once all rows have arrived."""
    html = re.sub(r"<meta http-equiv=[^>]*>", "", page.read_text(encoding="utf-8"))
    script = f"<script>async function act() {{ {actions} }}\n{HELPERS}</script></body>"
    copy = page.with_name("copy.html")
    copy.write_text(html.replace("</body>", script), encoding="utf-8")
    title = re.search(r"<title>(.*?)</title>", browse(copy, profile, view, width))
    assert title
    out: dict[str, Any] = json.loads(unescape(title[1]))
    assert "error" not in out, out["error"]
    return out


def browse(page: Path, profile: Path, view: str = "", width: int = 1300) -> str:
    return dom(page, profile, view, f"--window-size={width},900")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sweep(tmp_path_factory.mktemp("runs") / "sweep", samples=8, changes={(1, "auto"): FAILED})


@pytest.fixture(scope="module")
def page(root: Path) -> Path:
    return write_folder_report([root], root / "report").page


def rows_of(root: Path, run: int) -> list[dict[str, Any]]:
    rows = pq.read_table(root / str(run) / "results.parquet").to_pylist()
    return [row for row in rows if row["variant"] == "auto"]


def test_the_first_view_needs_no_rows(root: Path, tmp_path: Path) -> None:
    page = write_folder_report([root], tmp_path / "report").page
    (page.parent / "data" / "rows-000.js").unlink()
    document = browse(page, tmp_path / "profile")
    assert document.count('class="point"') == 7
    assert "data/rows-000.js could not be read; copy the whole folder" in document


def test_its_own_policy_lets_it_work(page: Path, tmp_path: Path) -> None:
    document = browse(page, tmp_path, "view=gallery")
    assert 'data-loaded="1"' in document
    assert document.count('<img src="thumbs/') > 8
    assert document.count("<img ") == document.count('loading="lazy"'), "pictures come when they are near"
    assert not re.search(r"\b(NaN|null|undefined|Infinity)\b", re.sub(r"<[^>]*>", " ", document))


def test_a_click_on_a_heading_sorts(page: Path, root: Path, tmp_path: Path) -> None:
    out = act(
        page,
        tmp_path,
        """
        const click = (name) => document.querySelector(`#runs [data-sort="${name}"]`).click();
        click("lpips"); out.down = names(); out.mark = texts("#runs [aria-sort=descending]")[0];
        click("lpips"); out.up = names(); out.hash = location.hash;
        click("name"); out.named = names();
        out.costs = texts("#runs tbody tr:nth-child(2) td").slice(-7);
        """,
    )
    runs = [f"inversion={inversion} tau.cross={tau:g}" for inversion in ("ddim", "direct") for tau in TAUS]
    means = {name: np.nanmean([row["lpips"] for row in rows_of(root, i)]) for i, name in enumerate(runs)}
    order = sorted(means, key=lambda name: -means[name])
    assert [name for name in out["down"] if name in means] == order
    assert [name for name in out["up"] if name in means] == order[::-1]
    assert out["down"][-1] == "no edit", "the reference stays below"
    assert "LPIPS" in out["mark"]
    assert out["hash"] == "#sort=lpips&dir=up"
    assert out["costs"][1:] == ["100", "75", "900", "0.750", "8 cold", "0"], "rows alone, spent, memory, ..."
    assert out["named"][:-1] == sorted(out["named"][:-1])


def test_search_and_category_filter_runs_and_edits(page: Path, tmp_path: Path) -> None:
    out = act(
        page,
        tmp_path,
        """
        fire("query", "DIRECT 0.5", "input");
        out.names = names(); out.points = all("#marks .point").length; out.shown = texts("#runs-shown")[0];
        key("4");
        out.gallery = texts("#gallery-shown")[0];
        fire("category", "shape"); out.shape = texts("#gallery-shown")[0];
        fire("category", ""); fire("find", "failed broke", "input"); out.failed = texts("#edits .reason");
        fire("find", "no such words", "input"); out.none = texts("#edits")[0];
        """,
    )
    assert out == {
        "names": ["inversion=direct tau.cross=0.5", "no edit"],
        "points": 1,
        "shown": "1 of 7 runs",
        "gallery": "8 of 56 edits",
        "shape": "2 of 56 edits",
        "failed": ["failed it </script> broke"],
        "none": "No edit matches.",
    }


def test_the_gallery_sorts_edits_of_one_run(page: Path, root: Path, tmp_path: Path) -> None:
    rows = [row for row in rows_of(root, 4) if row["status"] == "ok"]
    best = [row["sample_id"] for row in sorted(rows, key=lambda row: row["lpips"])]
    out = act(
        page, tmp_path, 'out.ids = texts("#edits .mono");', "view=gallery&entry=5&gsort=lpips&order=best"
    )
    assert out["ids"] == [*best, "pair-001"], "without a value comes last"


BRUSH = """
const svg = document.getElementById("plot-svg"), box = svg.getBoundingClientRect();
const at = (x, y) => ({ clientX: box.left + x, clientY: box.top + y, bubbles: true, button: 0 });
const place = (point) => ["cx", "cy"].map((name) => Number(point.querySelector(".halo").getAttribute(name)));
const points = all("#marks .point"), chosen = points.slice(0, 2).map(place);
const low = [0, 1].map((k) => Math.min(...chosen.map((p) => p[k])) - 1);
const high = [0, 1].map((k) => Math.max(...chosen.map((p) => p[k])) + 1);
const within = (point) => place(point).every((v, k) => v >= low[k] && v <= high[k]);
svg.dispatchEvent(new PointerEvent("pointerdown", at(...low)));
window.dispatchEvent(new PointerEvent("pointermove", at(...high)));
out.drawn = Number(document.getElementById("brush").getAttribute("width")) > 0;
window.dispatchEvent(new PointerEvent("pointerup", at(...high)));
out.inside = points.filter(within).map((point) => point.dataset.entry);
out.selected = new URLSearchParams(location.hash.slice(1)).get("sel").split(",");
out.rows = all("#runs tbody tr[data-entry]").map((row) => row.dataset.entry);
out.dim = all("#marks .dim").length;
key("4"); out.gallery = texts("#gallery-shown")[0];
key("1"); key("Escape"); out.cleared = all("#runs tbody tr[data-entry]").length;
"""


def test_brushing_keeps_the_points_inside_in_every_view(page: Path, tmp_path: Path) -> None:
    out = act(page, tmp_path, BRUSH)
    assert out["drawn"]
    assert 2 <= len(out["inside"]) < 7
    assert sorted(out["selected"]) == sorted(out["inside"]) == sorted(out["rows"])
    assert out["dim"] == 7 - len(out["inside"])
    assert out["gallery"] == f"{8 * len(out['inside'])} of 56 edits"
    assert out["cleared"] == 7


def test_points_answer_to_keys_and_hover(page: Path, tmp_path: Path) -> None:
    out = act(
        page,
        tmp_path,
        """
        const points = all("#marks .point");
        out.tabs = points.filter((point) => point.getAttribute("tabindex") === "0").length;
        points[0].focus(); out.tip = !document.getElementById("tip").hidden && texts("#tip strong")[0];
        key("ArrowRight", points[0]); out.next = document.activeElement === points[1];
        key("Enter", points[1]); out.selected = location.hash === "#sel=" + points[1].dataset.entry;
        key("6"); out.view = all("main > section:not([hidden])").map((node) => node.id);
        """,
    )
    assert out.pop("tip").startswith("inversion=")
    assert out == {"tabs": 1, "next": True, "selected": True, "view": ["view-difference"]}


def test_worst_edits_and_film_strips(page: Path, root: Path, tmp_path: Path) -> None:
    rows = [(i, row) for i in range(6) for row in rows_of(root, i) if row["status"] == "ok"]
    baseline = pq.read_table(root / "0" / "results.parquet").to_pylist()
    rows += [(9, row) for row in baseline if row["variant"] == "none"]
    worst = [row["sample_id"] for _, row in sorted(rows, key=lambda pair: -pair[1]["lpips"])][:6]
    out = act(
        page,
        tmp_path,
        """
        key("5"); out.worst = texts('[data-metric="lpips"] .mono');
        key("3"); out.strips = all(".strip").length; out.taus = texts(".strip:first-child figcaption b");
        const image = document.querySelectorAll(".strip .picture")[1]; image.click();
        const viewer = document.getElementById("viewer");
        out.open = viewer.open && texts("#viewer h2")[0];
        viewer.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight" }));
        out.next = texts("#viewer h2")[0];
        viewer.close(); await soon(); out.closed = location.hash;
        """,
    )
    assert out == {
        "worst": worst,
        "strips": 8,
        "taus": ["0.2/0.1", "0.5/0.25", "0.8/0.4"],
        "open": "inversion=ddim tau.cross=0.2 pair-000",
        "next": "inversion=ddim tau.cross=0.5 pair-000",
        "closed": "#view=strips",
    }


OVERLAPS = """
const marks = [".better", ".still text", ".bound text"].map((one) => all("#plot-svg " + one)[0]);
const boxes = marks.map((mark) => mark.getBoundingClientRect());
const overlap = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
out.hidden = boxes.flatMap((a, i) => boxes.slice(0, i).filter((b) => overlap(a, b))).length;
"""


@pytest.mark.parametrize(("width", "up"), [(1300, "psnr"), (500, "psnr"), (1300, "lpips"), (500, "lpips")])
def test_references_stand_in_the_chart_and_hide_nothing(tmp_path: Path, width: int, up: str) -> None:
    variants = {"none": None, "low": 0.2, "high": 0.8}
    known = {"no_edit": NO_EDIT, "vae": VAE}
    run = fake_run(tmp_path / "run", samples=4, variants=variants, references=known, pictures=False)
    page = write_folder_report([run], tmp_path / "out").page
    out = act(
        page,
        tmp_path / "profile",
        OVERLAPS
        + """
        out.texts = texts("#plot-svg .still text, #plot-svg .bound text");
        out.notes = texts("#runs .bound-note"); out.rows = texts("#runs .reference .variant-name");
        const at = all("#runs thead th").findIndex((cell) => cell.textContent.includes("LPIPS"));
        out.cells = all("#runs .reference").map((row) => row.children[at].querySelector(".mean").textContent);
        out.note = texts("#references")[0];
        fire("axis-x", "clip_direction");
        out.absent = all("#plot-svg .still").length; out.why = texts("#references")[0];
        """,
        f"x=attribute_changed&y={up}&all=1",
        width,
    )
    bounds = {"psnr": "VAE alone 31 dB", "lpips": "VAE alone 0.0200"}
    assert out["texts"] == [bounds[up], "no edit 100 ↑" if up == "psnr" else "no edit"]
    assert out["hidden"] == 0
    assert "The triangle is no edit" in out["note"]
    assert "The dotted line is the VAE alone" in out["note"]
    assert out["rows"] == ["no edit", "VAE alone"]
    assert out["cells"] == ["0", "0.0200"]
    beside = [f"VAE alone {bound}" for bound in ("0.0200", "31", "0.970", "32", "1.000")]
    assert out["notes"] == beside, "every fidelity"
    assert out["absent"] == 0
    assert "has no CLIP direction" in out["why"]


def test_the_difference_of_two_runs(page: Path, root: Path, tmp_path: Path) -> None:
    out = act(
        page,
        tmp_path,
        """
        out.cells = texts('[data-test="lpips"] td');
        out.categories = texts('[aria-label="Category by Category"] tbody th');
        document.getElementById("swap").click(); out.swapped = texts('[data-test="lpips"] td')[2];
        fire("run-b", document.getElementById("run-a").value); out.same = texts("#difference")[0];
        """,
        "view=difference&a=1&b=3&metric=lpips",
    )
    first, second = ([row["lpips"] for row in rows_of(root, i)] for i in (0, 2))
    found = compare_paired(first, second)
    cells = [cell.replace("−", "-") for cell in out["cells"]]
    assert float(cells[0]) == pytest.approx(np.nanmean(first), rel=2e-3)
    assert float(re.match(r"\+?([\d.]+\d)\+", cells[2])[1][:5]) == pytest.approx(  # type: ignore[index]  # no match fails here
        found.difference.mean, rel=2e-3
    )
    assert cells[3:5] == ["7", "7"], "the failed edit has no pair"
    assert float(cells[5]) == pytest.approx(found.effect, rel=2e-3)
    assert [float(cell) for cell in cells[6:8]] == pytest.approx(
        [found.p_permutation, found.p_wilcoxon], abs=6e-4
    )
    assert float(cells[8]) >= float(cells[6])
    assert out["categories"] == ["background", "colour", "refine", "shape"]
    assert out["swapped"].startswith("−")
    assert out["same"] == "Choose two different runs."


def test_its_statistics_are_those_of_the_library(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    cases = []
    for case, size in enumerate((1, 2, 7, 12, 30, 60, 45)):
        values = rng.normal([0.3, 0.0], 1.0, size=(size, 2)).round(2).tolist()
        cases.append([[*pair, f"g{i // (1 + case % 2)}"] for i, pair in enumerate(values)])
    cases.append([[1.0, 1.0, "a"], [2.0, 2.0, "b"]])
    cases.append([[0.3, 0.2, "a"], [0.2, 0.1, "b"], [0.6, 0.5, "c"]])  # equal but for rounding
    cases.append([[0.1 + 0.2, 0.3, "a"], [0.5, 0.2, "b"], [0.4, 0.2, "c"], [0.2, 0.4, "d"]])  # one is none
    p_values = [0.04, None, 0.01, 0.03, 0.6]
    script = (Path(folder.__file__).parent / "assets/folder/statistics.js").read_text()
    page = tmp_path / "page.html"
    page.write_text(
        f"<html><head><title></title></head><body><script>{script}\n"
        f"const found = [{json.dumps(cases)}.map(comparePaired), holm({json.dumps(p_values)})];\n"
        "document.title = JSON.stringify(found);"
        'document.documentElement.dataset.ready = "1";</script></body></html>'
    )
    title = re.search(r"<title>(.*?)</title>", dom(page, tmp_path / "profile"))
    assert title
    results, corrected = json.loads(unescape(title[1]))
    for case, found in zip(cases, results, strict=True):
        expected = compare_paired(*([pair[k] for pair in case] for k in range(3)))
        assert (found["pairs"], found["groups"]) == (len(case), expected.groups)
        assert found["difference"] == pytest.approx(expected.difference.mean)
        assert (found["effect"] is None) == math.isnan(expected.effect)
        assert found["effect"] is None or found["effect"] == pytest.approx(expected.effect)
        assert found["wilcoxon"] == pytest.approx(expected.p_wilcoxon, abs=1e-9)
        exact = expected.groups <= 12
        assert found["p"] == pytest.approx(expected.p_permutation, abs=1e-12 if exact else 0.03)
        if expected.groups > 2:
            width = expected.difference.high - expected.difference.low
            assert found["low"] == pytest.approx(expected.difference.low, abs=0.15 * width)
            assert found["high"] == pytest.approx(expected.difference.high, abs=0.15 * width)
    known = [p for p in p_values if p is not None]
    assert [p for p in corrected if p is not None] == pytest.approx(holm(known))
    assert corrected[1] is None


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    fields = ("sample_id", "category", "source_prompt", "target_prompt", "variant", "error")
    hostile = dict.fromkeys(fields, ATTACK)
    run = fake_run(
        tmp_path / "run", samples=2, changes={(0, "none"): hostile, (1, "none"): {**FAILED, **hostile}}
    )
    page = write_folder_report([run], tmp_path / "out").page
    document = browse(page, tmp_path / "profile", "view=gallery&gsort=")
    assert "<title>demo · p2p_bench</title>" in document
    assert not re.search(r'<img[^>]* src="x"', document)
    assert unescape(re.sub(r"<[^>]*>", " ", document)).count("onerror=\"document.title='owned'\"") >= 6


def test_nothing_is_wider_than_a_phone(page: Path, tmp_path: Path) -> None:
    out = act(
        page,
        tmp_path,
        """
        out.width = window.innerWidth;
        out.views = [];
        for (const view of "123456") { key(view); out.views.push(document.documentElement.scrollWidth); }
        """,
        width=500,
    )
    assert len(out["views"]) == 6
    assert max(out["views"]) <= out["width"]


def test_published_means_stand_beside_the_runs(tmp_path: Path) -> None:
    direct = next(row for row in published_rows() if row.method == "Direct + P2P")
    runs = [pie_run(tmp_path / "a", direct.values), pie_run(tmp_path / "b", direct.values, images=9, seed=1)]
    page = write_folder_report(runs, tmp_path / "report").page
    out = act(
        page,
        tmp_path / "profile",
        """
        const counts = () => [all("#published .published").length, all("#published .masks").length,
          texts("#runs tbody tr.reference .variant-name").length, all("#marks .point").length];
        out.shown = counts();
        const box = document.getElementById("with-published");
        out.offered = !box.parentElement.hidden;
        box.click();
        out.hidden = counts();
        all("#tabs button")[1].click();
        out.verdicts = texts("#view-tables .verdict .badge");
        """,
        "#x=pie_clip_whole&y=pie_psnr",
    )
    both = [row for row in published_rows() if {"pie_clip_whole", "pie_psnr"} <= row.values.keys()]
    masks = sum(row.masks for row in both)
    assert out["shown"] == [len(both), masks, len(published_rows()), 2]
    assert masks == 2
    assert out["offered"]
    assert out["hidden"] == [0, 0, 0, 2]
    assert out["verdicts"].count("reproduced") == 1
    assert out["verdicts"].count("not run") == len(out["verdicts"]) - 1
