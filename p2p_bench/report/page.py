"""The page: one HTML file that opens from disk and fetches nothing."""

import base64
import hashlib
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from p2p_bench.bench.rows import write_atomically
from p2p_bench.report.columns import column_notes, metric_columns
from p2p_bench.report.payload import build_payload, cautions, facts, totals
from p2p_bench.report.runs import Run, flatten, read_run, text_of
from p2p_bench.report.templates import asset, environment

MOST_FAILURES = 1_000
"""Failed edits that a page lists at most."""

_SCRIPTS = (
    "helpers.js", "references.js", "state.js", "summary.js", "plot.js", "gallery.js", "viewer.js", "main.js",
)  # fmt: skip


def write_report(run_dir: Path | str) -> Path:
    """Write `report.html` into a run directory, from its rows, summary and pictures alone.

    Args:
        run_dir: Directory of a finished run.

    Returns:
        Path of the page.

    Raises:
        DataError: The directory has no rows or no summary, or one of them cannot be read.
    """
    run = read_run(Path(run_dir))
    out = Path(run_dir) / "report.html"
    html = render(run, out.parent)
    write_atomically(out, lambda temporary: temporary.write_text(html, encoding="utf-8", newline="\n"))
    return out


def render(run: Run, page_dir: Path) -> str:
    """The page of a run as text; its links are relative to `page_dir`."""
    payload = build_payload(run, page_dir)
    style, script = asset("report.css"), "\n".join(asset(name) for name in _SCRIPTS)
    script = f'"use strict";\n(() => {{\n{script}\n}})();'
    failures = [row for row in run.rows if row["status"] != "ok"]
    template = environment().get_template("report.html.j2")
    return template.render(
        title=run.name,
        style=Markup(style),
        script=Markup(script),
        policy=policy(style, script),
        data=script_json(payload),
        facts=facts(run),
        cautions=cautions(run),
        totals=totals(run),
        world=any(metric["backbone"] == "world" for metric in payload["metrics"]),
        notes=column_notes(metric_columns(run.summary["metrics"])),
        num_variants=len(payload["variants"]),
        failures=failures[:MOST_FAILURES],
        num_failures=len(failures),
        whole=payload["whole"],
        num_samples=len(payload["samples"]),
        elsewhere=_elsewhere(page_dir),
        details=_details(run.summary),
        schema_version=run.summary["schema_version"],
    )


def _elsewhere(page_dir: Path) -> str:
    """The command that shows what the page of a run does not hold."""
    place = shlex.quote(str(page_dir.absolute()))
    return f"p2p-bench report {place} --out {shlex.quote(str(page_dir.absolute() / 'report'))}"


def script_json(data: Any) -> Markup:
    """JSON that may stand inside a script element: it holds no character that could end or open markup.

    Raises:
        ValueError: `data` holds NaN or infinity, which JSON has not.
    """
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _details(summary: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """The summary's settings and origins as titled lists of (key, text)."""
    parts = [
        ("Settings", "settings"),
        ("Versions", "versions"),
        ("Rows made by", "made_by"),
        ("Checksums", "checksums"),
        ("Git", "git"),
    ]
    found = []
    for heading, key in parts:
        value = summary.get(key)
        if isinstance(value, Mapping):
            pairs = [(name, text_of(item)) for name, item in flatten(value)]
        else:
            pairs = [(key, text_of(value))] if value else []
        if pairs:
            found.append((heading, pairs))
    return found


def policy(style: str, script: str) -> str:
    """Content security policy: this very style and script, embedded pictures, nothing else."""

    def source(text: str) -> str:
        return (
            "'sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii") + "'"
        )

    return (
        f"default-src 'none'; img-src data:; style-src {source(style)}; script-src {source(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
