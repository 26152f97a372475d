"""The embedded judges on renders: they must tell a perfect edit from none."""

import math
from dataclasses import replace

import pytest
import torch
import yaml
from hydra.utils import instantiate

from p2p_bench.data import WorldReal
from p2p_bench.metrics import EditView, Metric, evaluate
from p2p_bench.resources import resource_path

CATEGORIES = ("swap_shape", "swap_colour", "swap_background", "refine_global")


@pytest.fixture(scope="module")
def metrics() -> dict[str, Metric]:
    nodes = yaml.safe_load(resource_path("conf", "metrics", "default.yaml").read_text())
    built = {name: instantiate(node) for name, node in nodes.items()}
    for metric in built.values():
        metric.check()
    return built


@pytest.fixture(scope="module")
def perfect() -> list[EditView]:
    """Forty edits whose result is the exact answer."""
    dataset = WorldReal(count=40, seed=11, categories=CATEGORIES)
    views = []
    for pair in dataset.pairs():
        pixels = dataset.load(pair, (64, 64))
        assert pixels.image is not None
        assert pixels.answer is not None
        views.append(
            EditView(
                source=pixels.image,
                edited=pixels.answer,
                source_prompt=pair.source_prompt,
                target_prompt=pair.target_prompts[0],
                mask=pixels.mask,
                answer=pixels.answer,
                scene=pair.scene,
                scene_edit=pair.scene_edit,
            )
        )
    return views


def mean(rows: list[dict[str, float]], column: str) -> float:
    values = [row[column] for row in rows if not math.isnan(row[column])]
    return sum(values) / len(values)


def test_a_perfect_edit_and_none(metrics: dict[str, Metric], perfect: list[EditView]) -> None:
    done = evaluate(metrics, perfect)
    undone = evaluate(metrics, [replace(view, edited=view.source) for view in perfect])
    assert mean(done, "attribute_changed") >= 0.85
    assert mean(undone, "attribute_changed") <= 0.1
    assert mean(done, "others_kept") >= 0.85
    assert mean(undone, "others_kept") == 1
    closer = [a["clip_target"] > b["clip_target"] for a, b in zip(done, undone, strict=True)]
    farther = [a["clip_source"] < b["clip_source"] for a, b in zip(done, undone, strict=True)]
    assert sum(closer) >= 0.8 * len(closer)
    assert sum(farther) >= 0.8 * len(farther)
    assert mean(done, "clip_direction") > 0.2
    assert {row["lpips"] for row in undone} == {0.0}
    assert {row["background_error"] for row in done if not math.isnan(row["background_error"])} == {0.0}


def test_lpips_grows_with_the_damage(metrics: dict[str, Metric], perfect: list[EditView]) -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(len(perfect), 3, 64, 64, generator=generator)
    means = []
    for strength in (0.02, 0.08, 0.3):
        views = [
            replace(view, edited=(view.source + strength * noise[i]).clamp(0, 1))
            for i, view in enumerate(perfect)
        ]
        means.append(mean(metrics["lpips"](views), "lpips"))
    assert means[0] < means[1] < means[2]
