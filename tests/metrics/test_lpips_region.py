"""LPIPS by region against the maps of the lpips package, on random trunks of every kind."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from p2p_bench.errors import MissingWeightsError
from p2p_bench.metrics.base import evaluate, split_reasons
from p2p_bench.metrics.lpips import Lpips, Net, load_lpips
from p2p_bench.metrics.lpips_network import distance_map
from p2p_bench.metrics.lpips_region import LpipsRegions
from p2p_bench.metrics.pie_lpips import PieLpips
from tests.metrics.photographs import photo_views
from tests.metrics.trunks import random_trunk


@pytest.mark.parametrize("net", ["alex", "vgg", "squeeze"])
def test_maps_are_the_packages(net: Net, tmp_path: Path) -> None:
    path = random_trunk(net, tmp_path)
    package = load_lpips(net, path)
    package.spatial = True
    view = photo_views(64, 80)[1]
    assert view.mask is not None
    ours = LpipsRegions(net, path)([view])[0]
    with torch.inference_mode():
        a, b = view.source[None], view.edited[None]
        assert torch.allclose(distance_map(package, a, b), package(a * 2 - 1, b * 2 - 1)[:, 0], atol=1e-6)
        for side, kept in (("inside", view.mask == 1), ("outside", view.mask == 0)):
            composed = torch.where(kept, view.edited, view.source)[None]
            expected = package(a * 2 - 1, composed * 2 - 1)[0, 0][kept].mean().item()
            assert ours[f"lpips_{side}"] == pytest.approx(expected, rel=1e-5)
            assert expected > 0


def test_the_worlds_map_has_the_mean_of_its_distance() -> None:
    """At sides that every stage divides, bilinear enlargement keeps the mean nearly."""
    view = photo_views(64, 64)[1]
    network = LpipsRegions().network(torch.device("cpu"))
    with torch.inference_mode():
        mapped = distance_map(network.module, view.source[None], view.edited[None]).mean().item()
    assert mapped == pytest.approx(Lpips()([view])[0]["lpips"], rel=0.05)


def test_the_other_region_has_no_part() -> None:
    view = photo_views(64, 80)[0]
    assert view.mask is not None
    for side, other in (("inside", view.mask == 0), ("outside", view.mask == 1)):
        spoilt = replace(view, edited=torch.where(other, 1 - view.edited, view.edited))
        before, after = LpipsRegions()([view, spoilt])
        assert before[f"lpips_{side}"] == after[f"lpips_{side}"]
        restored = replace(view, edited=torch.where(other, view.edited, view.source))
        assert LpipsRegions()([restored])[0][f"lpips_{side}"] == 0


def test_nets_share_a_network_and_have_columns_of_their_own() -> None:
    assert LpipsRegions().network(torch.device("cpu")) is not None
    one, two = Lpips(), LpipsRegions()
    assert one.network(torch.device("cpu")) is two.network(torch.device("cpu"))
    assert Lpips("vgg", column="lpips_vgg").columns[0].name == "lpips_vgg"


def test_each_image_passes_once_whatever_columns_ask(tmp_path: Path) -> None:
    trunk = random_trunk("squeeze", tmp_path)
    one, other = photo_views(64, 80)[:2]
    views = [one, replace(one, edited=other.edited)]  # two edits of one source
    metrics = {
        "lpips": Lpips("squeeze", trunk),
        "again": Lpips("squeeze", trunk, column="lpips_again"),
        "lpips_region": LpipsRegions("squeeze", trunk),
        "pie_lpips": PieLpips(trunk),
    }
    network: Any = metrics["lpips"].network(torch.device("cpu"))
    passed: list[int] = []
    handle = network.module.net.register_forward_pre_hook(lambda part, given: passed.append(len(given[0])))
    together = evaluate(metrics, views)
    handle.remove()
    # The source, and black where it may change; by edit: whole, inside, outside, and black from its JPEG.
    assert sum(passed) == 2 + 2 * 4
    network._memo.clear()
    alone = [evaluate({name: metric}, [view])[0] for view in views for name, metric in metrics.items()]
    for row, parts in zip(together, (alone[:4], alone[4:]), strict=True):
        expected = {key: value for part in parts for key, value in part.items()}
        assert row == pytest.approx(expected, rel=1e-5)
    assert together[0]["lpips"] == together[0]["lpips_again"] != together[1]["lpips"]


def test_undefined_and_absent(tmp_path: Path) -> None:
    view = photo_views(64, 80)[0]
    rows = LpipsRegions()([replace(view, mask=mask) for mask in (None, torch.ones(64, 80))])
    assert [sorted(split_reasons(row)[1]) for row in rows] == [["lpips_inside", "lpips_outside"]] * 2
    with pytest.raises(MissingWeightsError, match="is not there"):
        LpipsRegions("squeeze", tmp_path / "none.pth").check()
