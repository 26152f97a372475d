"""The page of `p2p-bench studio`."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from p2p_bench.models import ModelSpec
from p2p_bench.report.page import policy, script_json
from p2p_bench.report.templates import asset, environment

SOURCE, TARGET = "a red circle on grass", "a blue circle on grass"
"""What the page begins with where the model knows these words, and shows as an example else."""


def studio_page(
    spec: ModelSpec,
    first: Mapping[str, Any],
    options: Mapping[str, Sequence[Mapping[str, Any]]],
    token: str,
    most: int,
) -> str:
    """The page as text; it fetches nothing but edits from where it came from.

    Args:
        spec: Facts about the model.
        first: What its controls begin with.
        options: What it offers of each group: `name`, `purpose`, `needs`, and whether tau matters.
        token: What requests have to bear.
        most: Bytes that a picture's file may have.
    """
    style, script = asset("report.css") + asset("studio.css"), f'"use strict";\n{asset("studio.js")}'
    height, width = spec.image_size
    words = sorted(spec.vocabulary or ())
    return (
        environment()
        .get_template("studio.html.j2")
        .render(
            style=Markup(style),
            script=Markup(script),
            policy=policy(style, script) + "; connect-src 'self'",
            data=script_json({"token": token, "options": options, "most": most}),
            model=spec.name,
            size=f"{width} x {height}",
            words=words,
            known=not words or set(f"{SOURCE} {TARGET}".split()) <= set(words),
            source=SOURCE,
            target=TARGET,
            first=first,
            options=options,
        )
    )
