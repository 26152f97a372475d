"""The page in a headless browser: what it draws, sorts, filters and escapes."""

import json
import math
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from p2p_bench.report import write_report
from tests.report.fake_run import METRICS, NO_EDIT, VAE, VARIANTS, fake_run

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs chromium, chromium-browser or google-chrome")

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --virtual-time-budget=4000"
)
FAILED = {"status": "error", "error": "it broke", **dict.fromkeys(METRICS, math.nan)}


def dom(page: Path, profile: Path, view: str = "", *flags: str) -> str:
    """The page's document after its script has run, without the script and the data."""
    command = [
        str(BROWSER),
        *FLAGS.split(),
        *flags,
        f"--user-data-dir={profile}",
        "--dump-dom",
        f"{page.as_uri()}#{view}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "data-ready=" in done.stdout, done.stderr
    return re.sub(r"(?s)<(script|style)\b.*?</\1>", "", done.stdout)


def cards(document: str) -> list[str]:
    return re.findall(r'<article class="card sample" data-id="([^"]*)"', document)


def words(document: str) -> str:
    return unescape(re.sub(r"<[^>]*>", " ", document))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = fake_run(tmp_path_factory.mktemp("runs") / "run", changes={(1, "tau=0.8"): FAILED})
    return write_report(run)


def rows_of(page: Path) -> list[dict]:
    return pq.read_table(page.with_name("results.parquet")).to_pylist()


def test_everything_is_drawn_and_nothing_undefined_shows(page: Path, tmp_path: Path) -> None:
    document = dom(page, tmp_path)
    assert cards(document) == [f"pair-{i:03d}" for i in range(8)], "as run"
    assert document.count('class="point"') == len(VARIANTS)
    assert document.count("<polyline") == 1, "one line joins the three taus"
    assert "it broke" in words(document)
    assert "1 failed" in words(document)
    assert re.search(r'class="number undefined">–<', document), "refinements have no attribute to change"
    assert not re.search(r"\b(NaN|null|undefined|Infinity)\b", words(document))
    assert 'class="badge"' in document, "numbers of the world are marked"


def test_references_stand_below_the_variants_and_in_the_plot(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run", samples=4, references={"no_edit": NO_EDIT, "vae": VAE})
    document = dom(write_report(run), tmp_path / "profile", "x=attribute_changed&y=lpips&metric=lpips&all=1")
    rows = re.findall(r'<tr class="reference">(.*?)</tr>', document)
    assert [words(row).split("reference")[0].strip() for row in rows] == ["no edit", "VAE alone"]
    assert "100" in words(rows[0]).split()
    assert re.search(r'class="number undefined">–<', rows[0]), "an unchanged picture has no direction"
    notes = re.findall(r'class="bound-note"[^>]*>VAE alone ([\d.]+)<', document)
    assert notes == ["0.0200", "31", "0.970", "32", "1.000"], "every fidelity"
    assert document.count('class="still"') == document.count('class="bound"') == 1
    assert document.count("ignores the source") == 1
    assert '<th scope="col" class="number">VAE alone</th>' in document, "by category too"
    document = dom(write_report(run), tmp_path / "profile", "x=clip_direction&y=lpips")
    assert 'class="still"' not in document
    assert "No edit, the source untouched, has no CLIP direction." in words(document)


def test_sorting_by_the_worst_edit(page: Path, tmp_path: Path) -> None:
    rows = rows_of(page)
    worst: dict[str, float] = {}
    for row in rows:
        if not math.isnan(row["lpips"]):
            worst[row["sample_id"]] = max(worst.get(row["sample_id"], 0.0), row["lpips"])
    document = dom(page, tmp_path, "sort=lpips&order=worst")
    assert cards(document) == sorted(worst, key=lambda name: -worst[name])


def test_sorting_best_first_within_a_category_and_one_variant(page: Path, tmp_path: Path) -> None:
    rows = [row for row in rows_of(page) if row["variant"] == "tau=0.5" and row["category"] in ("colour",)]
    best = [row["sample_id"] for row in sorted(rows, key=lambda row: -row["psnr_outside"])]
    document = dom(page, tmp_path, "sort=psnr_outside&order=best&category=colour&hide=0,1,3")
    assert cards(document) == best
    assert document.count('class="point"') == 1
    assert "2 of 8 cards" in words(document)


def test_samples_without_the_value_come_last(page: Path, tmp_path: Path) -> None:
    document = dom(page, tmp_path, "sort=attribute_changed&order=worst")
    assert cards(document)[-2:] == ["pair-003", "pair-007"], "the refinements"


def test_better_is_up_and_to_the_right(page: Path, tmp_path: Path) -> None:
    document = dom(page, tmp_path, "x=lpips&y=psnr_outside")
    at = {int(v): (float(x), float(y)) for v, x, y in
          re.findall(r'class="mark v(\d)" cx="([\d.]+)" cy="([\d.]+)"', document)}  # fmt: skip
    gentle, plain = at[list(VARIANTS).index("tau=0.8")], at[list(VARIANTS).index("none")]
    assert gentle[0] > plain[0], "the lower LPIPS stands further right"
    assert gentle[1] < plain[1], "the higher PSNR stands further up"


ATTACK = (
    "<img src=x onerror=\"document.title='owned'\"></script><script>document.title='owned'</script>&\u2028"
)


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    fields = (
        "sample_id",
        "category",
        "source_prompt",
        "target_prompt",
        "variant",
        "error",
        "model",
        "dataset",
    )
    hostile = dict.fromkeys(fields, ATTACK)
    run = fake_run(
        tmp_path / "run", samples=2, changes={(0, "none"): hostile, (1, "none"): {**FAILED, **hostile}}
    )
    document = dom(write_report(run), tmp_path / "profile")
    assert "<title>demo · p2p_bench</title>" in document
    assert not re.search(r'<img[^>]* src="x"', document)
    assert words(document).count("onerror=\"document.title='owned'\"") >= len(fields)


def test_the_view_named_in_the_address_opens_one_edit(page: Path, tmp_path: Path) -> None:
    document = dom(page, tmp_path, "edit=2:0:pair-004")
    dialog = re.search(r"(?s)<dialog[^>]* open.*?</dialog>", document)
    assert dialog
    assert 'tau=0.5<small class="mono"> pair-004' in dialog[0]
    assert dialog[0].count("<img") == 6, "source, edit, difference, three of attention"


ACTIONS = """
const out = {};
const fire = (id, value, type = "change") => {
  const control = document.getElementById(id);
  if (typeof value === "boolean") control.checked = value; else control.value = value;
  control.dispatchEvent(new Event(type));
};
const ids = () => [...document.querySelectorAll("article.sample")].map((card) => card.dataset.id).join(" ");
fire("query", "STAR", "input"); out.search = ids();
fire("query", "no such words", "input"); out.nothing = !document.getElementById("nothing").hidden;
document.getElementById("reset").click(); out.reset = ids().split(" ").length;
document.querySelectorAll(".chip")[0].click();
out.rows = document.querySelectorAll("#means tbody tr").length;
out.hash = location.hash;
const columns = () => document.querySelectorAll("#means thead tr:last-child th").length;
const few = columns(); fire("all-metrics", true); out.more = columns() - few;
fire("show-heatmaps", false); out.heat = document.querySelectorAll(".named").length;
document.querySelector("article.sample button.picture").click();
const dialog = document.getElementById("viewer");
out.opened = dialog.open && dialog.querySelector("h2").textContent;
dialog.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight" }));
out.next = dialog.querySelector("h2").textContent;
document.title = JSON.stringify(out);
"""


def test_controls_search_reset_hide_and_step(page: Path, tmp_path: Path) -> None:
    html = page.read_text(encoding="utf-8")
    # The page's own policy refuses any other script, so the copy goes without it.
    html = re.sub(r"<meta http-equiv=[^>]*>", "", html).replace(
        "</body>", f"<script>{ACTIONS}</script></body>"
    )
    copy = tmp_path / "copy.html"
    copy.write_text(html, encoding="utf-8")
    title = re.search(r"<title>(.*?)</title>", dom(copy, tmp_path / "profile"))
    assert title
    out = json.loads(unescape(title[1]))
    assert out.pop("more") > 4, "the other metrics and the costs"
    assert out == {
        "search": "pair-001 pair-005",
        "nothing": True,
        "reset": 8,
        "rows": len(VARIANTS) - 1 + 1,  # a variant is hidden, a reference is there
        "hash": "#hide=0",
        "heat": 0,
        "opened": "tau=0.2 pair-000",
        "next": "tau=0.5 pair-000",
    }
