"""The figures of results.json as Markdown."""

import statistics
from collections.abc import Mapping
from typing import Any

from ways import PLAIN

Figures = Mapping[str, Any]


def write_tables(known: Mapping[str, Figures]) -> str:
    """A section for each device.

    Args:
        known: Device -> what was measured, by the job's name.
    """
    return (
        "\n".join(_section(card, figures) for card, figures in known.items()) or "Nothing was measured yet.\n"
    )


def _section(card: str, figures: Figures) -> str:
    lines = [f"## {card}", "", f"torch {figures['torch']}, {figures['dtype'].removeprefix('torch.')}", ""]
    rate = figures.get("matmul", {}).get("flops")
    if rate:
        lines += [f"Matmul rate (side {figures['matmul']['side']}): {rate / 1e12:.0f} TFLOP/s.", ""]
    layouts = dict.fromkeys(name.split()[0] for name in figures if " " in name)
    for name in layouts:
        lines += [f"### {name}", ""]
        for kind, table in (
            ("edit", _edits),
            ("throughput", lambda found: _throughput(found, rate)),
            ("sweep", _sweep),
            ("null-text", _null_text),
        ):
            if f"{name} {kind}" in figures:
                lines += [*table(figures[f"{name} {kind}"]), ""]
    return "\n".join(lines)


def _edits(found: Figures) -> list[str]:
    seconds, memory = found["seconds"], found["bytes"]
    lines = [
        f"Source and one target, {found['steps']} steps, {len(seconds[PLAIN])} rounds; plain sampling took "
        f"{statistics.median(seconds[PLAIN]):.2f} s.",
        "",
        "| way | time, ratio to plain sampling (least to most) | peak memory above the weights, ratio |",
        "|---|---|---|",
    ]
    for name, times in seconds.items():
        ratios = [a / b for a, b in zip(times, seconds[PLAIN], strict=True)]
        share = "not measured" if memory[name] is None else f"{memory[name] / memory[PLAIN]:.2f}"
        middle = statistics.median(ratios)
        lines.append(f"| {name} | {middle:.3f} ({min(ratios):.3f} to {max(ratios):.3f}) | {share} |")
    return lines


def _throughput(found: Figures, rate: float | None) -> list[str]:
    lines = [
        f"{found['steps']} steps; a row through the network is {found['row_flops'] / 1e12:.3f} TFLOP.",
        "",
        "| edits at once | edits a second | network, TFLOP/s | share of the matmul rate |",
        "|---|---|---|---|",
    ]
    for count, one in found["batches"].items():
        share = f"{one['flops'] / rate:.0%}" if rate else "not measured"
        lines.append(f"| {count} | {one['edits']:.2f} | {one['flops'] / 1e12:.2f} | {share} |")
    return lines


def _sweep(found: Figures) -> list[str]:
    shared, alone = found["one request"], found["one by one"]
    return [
        f"Eleven taus from 0 to 1, {found['steps']} steps: {shared['rows']} of {alone['rows']} UNet rows "
        f"({shared['rows'] / alone['rows']:.2f}), in {shared['seconds'] / alone['seconds']:.2f} of the time "
        "that they take one by one.",
    ]


def _null_text(found: Figures) -> list[str]:
    alone, batch = found["alone"], found["batch"]
    return [
        f"Null-text inversion, {found['steps']} steps of {found['inner_steps']} updates each: "
        f"{alone['seconds']:.1f} s alone, {batch['seconds'] / batch['images']:.1f} s an image in a batch of "
        f"{batch['images']}.",
    ]
