"""`p2p-bench check KEY=VALUE ...`: what is wrong with a data set for a run; no weights are read."""

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from p2p_bench.app.build import build, chosen_options, without_hydra
from p2p_bench.app.compose import checked_overrides, composed, composing
from p2p_bench.app.console import result_console, status_console
from p2p_bench.app.early import refuse_early
from p2p_bench.app.paths import user_path
from p2p_bench.errors import DataError, P2PError

if TYPE_CHECKING:
    from p2p_bench.bench.rows import Key
    from p2p_bench.bench.task import Task
    from p2p_bench.models import ModelSpec
    from p2p_bench.report.check_page import Alignment
    from p2p_bench.types import EditPair

_ALIGNED = 100
"""Pairs whose prompts a page shows side by side, from the first."""

_SHOWN = 40
"""Findings of a kind that are listed as text; --json lists all."""


def main(arguments: list[str], debug: bool) -> int:
    """Checks the pairs of a data set for the model and the controllers of a run; no weights are read.

    Args:
        arguments: Overrides as for a run, `--json`, `--page`, `--decode`.
        debug: Unused; errors are shown by the caller.

    Returns:
        0; 2 if an edit cannot be made or a picture cannot be read.
    """
    parser = argparse.ArgumentParser(
        prog="p2p-bench check",
        usage="p2p-bench check [--json] [--page FILE] [--decode] [KEY=VALUE ...]",
        description="Lists the edits of a data set that a run could not make, with the reason, and what may "
        "be a slip: words that the model was never trained on, equal prompts, pairs that repeat.",
    )
    parser.add_argument("--json", action="store_true", help="everything that was found, as one JSON object")
    parser.add_argument(
        "--page", type=user_path, metavar="FILE", help="the same as a page, with prompts side by side"
    )
    parser.add_argument("--decode", action="store_true", help="read every image and mask too")
    options, overrides = parser.parse_known_args(arguments)
    if wrong := [text for text in overrides if text.startswith("-")]:
        parser.error(f"unrecognized arguments: {' '.join(wrong)}")
    if options.page is not None and options.page.suffix.lower() not in (".html", ".htm"):
        parser.error(f"--page: expected a file that ends in .html, got {options.page}")
    decode = options.decode or "check.decode=true" in overrides
    task = _task([text for text in overrides if not text.startswith("check.decode=")])
    found = _found(task, decode)
    if options.page is not None:
        _write_page(options.page, found, task)
    result_console().print_json(json.dumps(found)) if options.json else _show(found)
    return DataError.exit_code if found["errors"] else 0


def _task(overrides: Sequence[str]) -> "Task":
    with composing():
        config = composed(tuple(checked_overrides(overrides)))
    refuse_early([without_hydra(config)], overrides)
    return build(without_hydra(config), chosen_options(config.hydra)).task


def _found(task: "Task", decode: bool) -> dict[str, Any]:
    """What there is to say, as plain values."""
    from p2p_bench.bench.lint import lint
    from p2p_bench.bench.lint_pictures import PictureLint, area_summary, lint_headers, lint_pixels
    from p2p_bench.data.base import all_pairs

    spec, pairs = task.checkpoint.spec(), all_pairs(task.dataset)
    if (unfit := task.editor.refusal(spec)) is not None:
        raise unfit
    faults: Mapping[Key, str] = lint(task, pairs, spec)
    errors = [
        {"pair": sample, "variant": variant, "target": target, "reason": reason}
        for (sample, variant, target), reason in faults.items()
    ]
    headers = lint_headers(pairs)
    pixels = lint_pixels(task.dataset, pairs, spec.image_size) if decode else PictureLint()
    # What the pixels show is told once; a header that cannot be read shows there too.
    told = dict([*headers.errors, *pixels.errors])
    errors += [{"pair": pair, "reason": reason} for pair, reason in told.items()]
    edits = sum(len(pair.target_prompts) for pair in pairs) * len(task.variants)
    return {
        "dataset": task.dataset.name,
        "model": spec.name,
        "pairs": len(pairs),
        "edits": edits,
        "cannot": len(faults),
        "decoded": decode,
        "categories": dict(Counter(pair.category or "" for pair in pairs)),
        "sizes": dict(headers.sizes.most_common()),
        "masks": dict(pixels.masks),
        "mask_area": area_summary(pixels.areas),
        "errors": errors,
        "warnings": [
            *_warnings(pairs, spec),
            *({"pair": pair, "reason": reason} for pair, reason in (*headers.warnings, *pixels.warnings)),
        ],
    }


def _write_page(path: Path, found: Mapping[str, Any], task: "Task") -> None:
    """Writes the page.

    Raises:
        P2PError: It cannot be written.
    """
    from p2p_bench.report.check_page import write_check_page

    try:
        write_check_page(path, found, list(_alignments(task)))
    except OSError as error:
        raise P2PError(f"--page: {path} cannot be written ({error}); choose another file") from error
    status_console().print(f"page: {path}", markup=False)


def _alignments(task: "Task") -> "Iterator[Alignment]":
    """The first pairs with their prompts side by side, and what each variant does to which column."""
    from p2p_bench.bench.requests import prepared_pair
    from p2p_bench.report.check_page import Alignment

    if task.editor.own_variant() is not None:
        return  # prompts are not compared
    spec, reader = task.checkpoint.spec(), task.checkpoint.reader()
    steps = task.sampler.steps_on(spec)
    for pair in task.dataset.pairs()[:_ALIGNED]:
        edits = [(variant, index) for variant in task.variants for index in range(len(pair.target_prompts))]
        try:
            prepared = prepared_pair(pair, edits, reader, spec, steps, task.truncate, task.inversion)
        except P2PError:
            continue  # an error above says why
        tables = {
            f"{variant.name}, {pair.target_prompts[index]!r}": str(made)
            for (variant, index), made in zip(edits, prepared.controllers, strict=True)
        }
        words = [
            [(word.text, len(word.columns)) for word in prompt.words]
            for prompt in dict.fromkeys(prepared.prompts)
        ]
        yield Alignment(pair.id, pair.source_prompt, pair.target_prompts, words, tables)


def _warnings(pairs: Sequence["EditPair"], spec: "ModelSpec") -> list[dict[str, str]]:
    """What may be a slip, and stops nothing."""
    from p2p_bench.bench.lint_pictures import holds_one_picture
    from p2p_bench.models.vocabulary import never_seen

    warnings: list[dict[str, str]] = []
    seen: dict[object, str] = {}
    for pair in pairs:
        if unknown := never_seen(spec, (pair.source_prompt, *pair.target_prompts)):
            named = ", ".join(map(repr, unknown))
            warnings.append({"pair": pair.id, "reason": f"the model was never trained on {named}"})
        if pair.source_prompt in pair.target_prompts and not pair.word_weights:  # weights edit equal prompts
            warnings.append({"pair": pair.id, "reason": "a target prompt equals the source prompt"})
        content = (pair.source_prompt, pair.target_prompts, pair.image, pair.seed)
        if first := seen.get(content):
            what = "prompts and image" if holds_one_picture(pair.image) else "prompts"
            warnings.append({"pair": pair.id, "reason": f"the same {what} as pair {first!r}"})
        seen.setdefault(content, pair.id)
    return warnings


def _show(found: Mapping[str, Any]) -> None:
    console = result_console()
    for kind, style in (("errors", "red"), ("warnings", "yellow")):
        for one in found[kind][:_SHOWN]:
            where = f"pair {one['pair']!r}" + (f", target {one['target'] + 1}" if "target" in one else "")
            console.print(f"[{style}]{kind[:-1]}[/] {escape(f'{where}: ' + one['reason'])}", soft_wrap=True)
        if (rest := len(found[kind]) - _SHOWN) > 0:
            console.print(f"... and {rest} more; --json lists all", markup=False)
    if found["sizes"]:
        sizes = ", ".join(f"{size} ({count})" for size, count in list(found["sizes"].items())[:5])
        more = len(found["sizes"]) - 5
        console.print(f"images: {sizes}" + (f" and {more} more sizes" if more > 0 else ""), markup=False)
    if found["masks"]:
        area = found["mask_area"]
        states = ", ".join(f"{count} {state}" for state, count in found["masks"].items())
        console.print(
            f"masks: {states}; they cover {area['min']:.0%} to {area['max']:.0%}, half of them up to "
            f"{area['median']:.0%}",
            markup=False,
        )
    able = found["edits"] - found["cannot"]
    console.print(
        f"{found['dataset']}: {found['pairs']} pairs, {able} of {found['edits']} edits can be made on model "
        f"{found['model']}; {len(found['warnings'])} warnings",
        markup=False,
        soft_wrap=True,
    )
