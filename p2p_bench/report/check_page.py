"""The page of `p2p-bench check`: what was found in a data set, and its prompts side by side."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from p2p_bench.bench.rows import write_atomically
from p2p_bench.report.changes import highlighted
from p2p_bench.report.page import policy
from p2p_bench.report.templates import asset, environment

_SHOWN = 500
"""Findings of a kind that are listed before the rest is only counted."""


@dataclass(frozen=True)
class Alignment:
    """A pair as controllers see it.

    Attributes:
        id: Of the pair.
        source: Its source prompt.
        targets: Its target prompts.
        words: By prompt, its words and how many tokens each has.
        tables: By variant and target, which columns come from where, or why it cannot be made.
    """

    id: str
    source: str
    targets: Sequence[str]
    words: Sequence[Sequence[tuple[str, int]]]
    tables: Mapping[str, str]


def write_check_page(path: Path, found: Mapping[str, Any], alignments: Sequence[Alignment]) -> None:
    """Writes one HTML file that opens from disk and fetches nothing.

    Args:
        path: The file.
        found: What `p2p-bench check --json` prints.
        alignments: The pairs that are shown.
    """
    kinds = Counter(one["reason"] for one in found["warnings"])
    pairs = [
        {
            "id": one.id,
            "sides": [highlighted(one.source, target) for target in one.targets],
            "pieces": dict.fromkeys(piece for prompt in one.words for piece in prompt if piece[1] > 1),
            "tables": one.tables,
        }
        for one in alignments
    ]
    style = asset("report.css") + asset("check.css")
    html = environment().get_template("check.html.j2").render(
        style=Markup(style),
        policy=policy(style, ""),
        found=found,
        able=found["edits"] - found["cannot"],
        errors=found["errors"][:_SHOWN],
        warnings=found["warnings"][:_SHOWN],
        kinds=kinds.most_common(20),
        left_out={kind: max(0, len(found[kind]) - _SHOWN) for kind in ("errors", "warnings")},
        pairs=pairs,
    )  # fmt: skip
    write_atomically(path, lambda temporary: temporary.write_text(html, encoding="utf-8", newline="\n"))
