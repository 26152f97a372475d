"""The page as a file, the tables and the reading of runs; `test_browser.py` looks at it in a browser."""

import base64
import io
import json
import math
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console

from p2p_bench.errors import DataError
from p2p_bench.report import summary_table, write_report
from p2p_bench.report.changes import highlighted
from p2p_bench.report.columns import Column, main_metrics
from p2p_bench.report.page import script_json
from p2p_bench.report.runs import read_run
from p2p_bench.report.tradeoff import Axes, choose_axes, level_metrics
from tests.report.fake_run import METRICS, NOTE, NOTES, VAE, VARIANTS, fake_run

FAILED = {"status": "error", "error": "the latent <b>broke</b> & died", **dict.fromkeys(METRICS, math.nan)}


class Page(HTMLParser):
    """Collects what a page refers to and the data it holds."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.references: list[str] = []
        self.policy = ""
        self.texts: dict[str, str] = {}
        self._open = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.references += [
            found[name] or "" for name in ("src", "href", "action", "srcset", "data") if name in found
        ]
        if found.get("http-equiv") == "Content-Security-Policy":
            self.policy = found["content"] or ""
        self._open = found.get("id") or tag

    def handle_data(self, data: str) -> None:
        self.texts[self._open] = self.texts.get(self._open, "") + data

    @property
    def data(self) -> dict:
        return json.loads(
            self.texts["data"], parse_constant=lambda name: pytest.fail(f"{name} in the page's data")
        )


def table_text(summary: dict, width: int = 160) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(summary_table(summary))
    return console.export_text()


def read_summary(run: Path) -> dict:
    return json.loads((run / "summary.json").read_text())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_run(tmp_path_factory.mktemp("runs") / "run", changes={(1, "tau=0.8"): FAILED})


def test_the_page_is_one_file_that_refers_to_nothing_outside(run: Path) -> None:
    before = {path.name for path in run.iterdir()}
    page = write_report(run)
    assert page == run / "report.html"
    assert {path.name for path in run.iterdir()} == before | {"report.html"}
    found = Page(page)
    assert [ref for ref in found.references if not ref.startswith(("#", "data:"))] == []
    assert found.policy.startswith("default-src 'none'; img-src data:; ")
    html = page.read_text(encoding="utf-8")
    for word in ("http://", "https://", "@import", "url(", "innerHTML"):
        assert word not in html
    assert all(uri.startswith("data:image/") for uri, _, _ in found.data["pictures"])


def test_pictures_of_one_content_are_held_once_and_exactly(run: Path) -> None:
    pictures = Page(write_report(run)).data["pictures"]
    assert len({uri for uri, _, _ in pictures}) == len(pictures)
    with Image.open(run / "images" / "pair-000-source.png") as original:
        pixels = original.convert("RGB").tobytes()
    embedded = [
        Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).tobytes() for uri, _, _ in pictures
    ]
    assert embedded.count(pixels) == 1


def test_rows_of_a_table_are_its_rows_and_share_equal_texts(run: Path) -> None:
    """Of a hundred thousand rows nearly all texts are the same few."""
    rows, table = read_run(run).rows, pq.read_table(run / "results.parquet").to_pylist()
    assert repr([dict(row) for row in rows]) == repr(table)  # by text: NaN is no NaN's equal
    first, second = rows[:2]
    assert (first["dataset"], list(first), len(first)) == (table[0]["dataset"], list(table[0]), len(table[0]))
    assert first["dataset"] is second["dataset"]
    assert (first.get("nothing", 3), first.get("dataset")) == (3, table[0]["dataset"])
    with pytest.raises(KeyError, match="nothing"):
        first["nothing"]


def test_large_pictures_become_thumbnails_with_a_link(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "a run #1", samples=1, side=400)
    page = write_report(run)
    assert Page(page).data["pictures"][0][1] == "images/pair-000-source.png"
    assert page.stat().st_size < 200_000


def test_means_and_counts_are_those_of_the_summary(run: Path) -> None:
    data = Page(write_report(run)).data
    names = [metric["name"] for metric in data["metrics"]]
    summary = read_summary(run)
    for variant in data["variants"]:
        stated = summary["variants"][variant["name"]]
        assert variant["counts"][""] == [stated["count"], stated["failed"]]
        for name in METRICS:
            found = dict(
                zip(("mean", "count", "low", "high"), variant["means"][""][names.index(name)], strict=True)
            )
            expected = stated["metrics"][name]
            assert found == {key: value and pytest.approx(value, rel=1e-5) for key, value in expected.items()}


def test_what_a_reader_should_know_stands_beside_its_columns(run: Path) -> None:
    path = write_report(run)
    html = path.read_text()
    assert html.count("† attribute changed, other attributes kept: of faultless photos") == 1
    assert "&lt;i&gt;pairs" in html, "a note is text"
    notes = {metric["name"]: metric["note"] for metric in Page(path).data["metrics"]}
    assert {name for name, note in notes.items() if note} == set(NOTES)
    assert " ".join(table_text(read_summary(run)).split()).count(NOTE) == 1


def test_category_means_are_means_of_their_rows(run: Path) -> None:
    data = Page(write_report(run)).data
    column = [metric["name"] for metric in data["metrics"]].index("lpips")
    rows = pq.read_table(run / "results.parquet").to_pylist()
    values = [row["lpips"] for row in rows if row["variant"] == "tau=0.5" and row["category"] == "shape"]
    variant = next(one for one in data["variants"] if one["name"] == "tau=0.5")
    mean, count, low, high = variant["means"]["shape"][column]
    assert (mean, count) == (pytest.approx(sum(values) / len(values), rel=1e-5), len(values))
    assert low < mean < high


def test_undefined_values_are_null_never_zero(run: Path) -> None:
    data = Page(write_report(run)).data
    names = [metric["name"] for metric in data["metrics"]]
    refined = [sample for sample in data["samples"] if sample["category"] == "refine"]
    changed = names.index("attribute_changed")
    assert refined
    assert all(edit["scores"][changed] is None for sample in refined for edit in sample["edits"])
    mean, count, low, high = data["variants"][0]["means"]["refine"][changed]
    assert (mean, count, low, high) == (None, 0, None, None)


def test_failed_rows_are_listed_with_their_reason_as_text(run: Path) -> None:
    html = write_report(run).read_text(encoding="utf-8")
    assert "the latent &lt;b&gt;broke&lt;/b&gt; &amp; died" in html
    edit = [e for s in Page(run / "report.html").data["samples"] for e in s["edits"] if e["failed"]]
    assert [one["error"] for one in edit] == [FAILED["error"]]


def test_missing_and_damaged_pictures_are_named(tmp_path: Path) -> None:
    run = fake_run(tmp_path, samples=2, changes={(0, "none"): {"image_target": "images/gone.png"}})
    (run / "images" / "pair-001-none.png").write_text("<svg onload=alert(1)>")
    notes = [note for _, _, note in Page(write_report(run)).data["pictures"] if note]
    assert notes == ["missing: images/gone.png", "not a picture: images/pair-001-none.png"]


def test_pictures_outside_the_run_are_refused(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run", samples=1, changes={(0, "none"): {"image_target": "../secret.png"}})
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    with pytest.raises(DataError, match=r"secret\.png.*outside the run directory"):
        write_report(run)


def test_a_run_of_parts_alone_gives_the_same_page(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    (copy / "rows").mkdir()
    table = pq.read_table(copy / "results.parquet")
    pq.write_table(table.slice(0, 5), copy / "rows" / "part-000000.parquet")
    pq.write_table(table.slice(5), copy / "rows" / "part-000001.parquet")
    (copy / "results.parquet").unlink()
    assert Page(write_report(copy)).data == Page(write_report(run)).data


def test_a_directory_that_is_no_run_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no rows here, expected results\.parquet"):
        write_report(tmp_path)
    (tmp_path / "results.parquet").write_text("broken")
    with pytest.raises(DataError, match="not a readable table"):
        write_report(tmp_path)
    shutil.copy(run / "results.parquet", tmp_path)
    with pytest.raises(DataError, match=r"summary\.json: missing, so the run is not finished"):
        write_report(tmp_path)
    (tmp_path / "summary.json").write_text("{")
    with pytest.raises(DataError, match="not valid JSON"):
        write_report(tmp_path)
    (tmp_path / "summary.json").write_text("{}")
    with pytest.raises(DataError, match="lacks schema_version, variants, metrics"):
        write_report(tmp_path)


def test_terminal_table_shows_arrows_counts_and_failures(run: Path) -> None:
    text = table_text(read_summary(run))
    lines = [line.split() for line in text.splitlines() if line.strip()]
    assert [line[1] for line in lines if line[0] in VARIANTS] == ["8", "8", "8", "7"]
    assert text.count("failed") == 1
    assert all(word in text for word in ("↑", "↓", "world", "dB"))
    assert "n=6" in text, "attribute changed is undefined for two of eight samples"
    mean = read_summary(run)["variants"]["none"]["metrics"]["psnr_outside"]
    assert f"{mean['mean']:.2f}" in text
    assert f"±{(mean['high'] - mean['low']) / 2:.2f}" in text


def test_terminal_table_ends_with_the_references(run: Path) -> None:
    summary = read_summary(run)
    means = {name: {"mean": value, "count": 8, "low": value, "high": value} for name, value in VAE.items()}
    text = table_text({**summary, "references": {"vae": {"count": 8, "metrics": means}}})
    last = text.rsplit("VAE alone", 1)[1].split()
    assert last[0] == "8"
    assert "0.0200" in last


def test_terminal_table_cuts_nothing_off_at_eighty_columns(run: Path) -> None:
    summary = read_summary(run)
    summary["variants"] = {f"auto 0.{i}/0.25": one for i, one in enumerate(summary["variants"].values())}
    narrow, wide = (table_text(summary, width).split() for width in (80, 300))
    assert sorted(narrow) == sorted(wide)


def test_terminal_table_takes_names_literally_and_shows_no_nan(run: Path) -> None:
    summary = read_summary(run)
    variants = summary["variants"]
    variants["[red]x[/red]"] = {"count": 0, "failed": 3, "metrics": {"lpips": {"mean": None, "count": 0}}}
    text = table_text(summary)
    assert "[red]x[/red]" in text
    assert "–" in text
    assert "nan" not in text.lower()


def column(name: str, role: str) -> Column:
    return Column(name, name, name, True, role)


def test_axes_come_from_roles_and_defined_values() -> None:
    metrics = [
        column("ssim", "fidelity"), column("clip_direction", "editability"), column("mine", "editability"),
        column("psnr_outside", "fidelity"), column("recon_psnr", "other"),
    ]  # fmt: skip

    def axes(**counts: int) -> Axes | None:
        return choose_axes(metrics, counts)

    every = {metric.name: 8 for metric in metrics}
    assert axes(**every) == Axes(x="clip_direction", y="psnr_outside")
    assert axes(**every | {"psnr_outside": 3}) == Axes(x="clip_direction", y="ssim"), "few edits have it"
    assert axes(ssim=8, mine=1) == Axes(x="mine", y="ssim")
    assert axes(ssim=8, recon_psnr=2) == Axes(x="recon_psnr", y="ssim")
    assert axes(ssim=1) == Axes(x="ssim", y="ssim")
    assert axes(ssim=0) is None
    assert axes() is None


def test_a_metric_that_tells_variants_apart_goes_before_one_that_is_level() -> None:
    metrics = [column(name, "editability") for name in ("attribute_changed", "clip_target")]
    metrics.append(column("ssim", "fidelity"))
    counts = {metric.name: 8 for metric in metrics}

    def summary(*variants: tuple[float, float, float]) -> dict:
        names = [metric.name for metric in metrics]
        return {
            "variants": {
                str(number): {"metrics": {n: {"mean": m} for n, m in zip(names, means, strict=True)}}
                for number, means in enumerate(variants)
            }
        }

    runs = [summary((1.0, 70.0, 0.5)), summary((1.0, 71.0, 0.5), (1.0, 70.0, 0.5))]
    level = level_metrics(runs)
    assert level == {"attribute_changed", "ssim"}
    assert choose_axes(metrics, counts, level) == Axes(x="clip_target", y="ssim")
    assert choose_axes(metrics, counts) == Axes(x="attribute_changed", y="ssim")
    assert level_metrics(runs[:1]) == set(), "one variant alone"


def test_main_metrics_are_the_well_known_ones_then_the_rest() -> None:
    assert main_metrics(["zeta", "lpips", "clip_direction"]) == ("clip_direction", "lpips", "zeta")
    assert len(main_metrics(METRICS)) == 6


def test_changed_words_are_told_apart() -> None:
    source, target = highlighted("a red circle, on grass", "A dark blue circle, on grass")
    assert source == [("a ", False), ("red", True), (" circle, on grass", False)]
    assert target == [("A ", False), ("dark blue", True), (" circle, on grass", False)]
    assert highlighted("", "snow") == ([], [("snow", True)])


@given(st.text(), st.text())
def test_pieces_of_a_prompt_are_the_prompt(source: str, target: str) -> None:
    pieces = highlighted(source, target)
    assert ["".join(text for text, _ in part) for part in pieces] == [source, target]
    same = highlighted(source, source)[0]
    assert not any(changed for _, changed in same)


@given(
    st.recursive(
        st.text() | st.none() | st.booleans(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_script_json_is_json_without_markup(value: object) -> None:
    text = str(script_json(value))
    assert json.loads(text) == value
    assert not set(text) & set("<>&\u2028\u2029")


def test_script_json_refuses_nan() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        script_json([math.nan])


def test_masks_that_divide_nothing_are_told(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run", samples=2, changes={(0, "none"): {"mask": "lost"}})
    page = write_report(run).read_text(encoding="utf-8")
    assert "1 edit: its mask lies outside the part of the image that is kept" in page
