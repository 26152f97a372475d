"""Networks of metrics hold the weights of their files, or nothing is scored."""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from p2p_bench.errors import MissingWeightsError
from p2p_bench.metrics import Metric
from p2p_bench.metrics.base import load_networks
from p2p_bench.metrics.clip import ClipScore
from p2p_bench.metrics.lpips import Lpips
from p2p_bench.metrics.world import WorldAttributes
from p2p_bench.resources import resource_path
from tests.models.test_weights import HARM

FILES = {
    "oracle_b": ("model.safetensors", WorldAttributes),
    "lpips": ("model.safetensors", lambda folder: Lpips("world", folder)),
    "clip": ("open_clip_model.safetensors", lambda folder: ClipScore("mine", None, folder)),
}


def damaged(part: str, folder: Path, kind: str, keys: list[str] | None = None) -> Metric:
    """A metric whose network has lost or spoilt some tensors; by default the last kernel."""
    file, metric = FILES[part]
    copy = Path(shutil.copytree(resource_path("p2p_bench", "world", "weights", part), folder / part))
    state = {key: value.clone() for key, value in load_file(copy / file).items()}
    for key in keys or [[key for key, value in sorted(state.items()) if value.ndim > 1][-1]]:
        HARM[kind](state, key)
    save_file(state, copy / file, {"format": "pt"})
    return metric(copy)


@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_any_subset_of_tensors_that_is_harmed_is_refused(data: st.DataObject) -> None:
    part, kind = data.draw(st.sampled_from(["oracle_b", "lpips"])), data.draw(st.sampled_from(sorted(HARM)))
    state = load_file(resource_path("p2p_bench", "world", "weights", part) / FILES[part][0])
    suited = [
        k for k, v in sorted(state.items()) if v.is_floating_point() and (kind != "all zero" or v.ndim > 1)
    ]
    keys = data.draw(st.lists(st.sampled_from(suited), min_size=1, unique=True))
    with TemporaryDirectory() as folder:
        metric = damaged(part, Path(folder), kind, keys)
        with pytest.raises(MissingWeightsError, match=f"{kind}: ") as caught:
            load_networks({"one": metric})
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("kind", sorted(HARM))
def test_clip_is_whole_or_refused(tmp_path: Path, kind: str) -> None:
    with pytest.raises(MissingWeightsError, match="CLIP"):
        load_networks({"clip": damaged("clip", tmp_path, kind)})


def test_position_embeddings_are_not_stretched_to_fit(tmp_path: Path) -> None:
    metric = damaged("clip", tmp_path, "of another shape", ["positional_embedding"])
    with pytest.raises(MissingWeightsError, match="positional_embedding"):
        load_networks({"clip": metric})


@pytest.mark.parametrize("part", sorted(FILES))
def test_files_that_are_cut_short(tmp_path: Path, part: str) -> None:
    file, metric = FILES[part]
    copy = Path(shutil.copytree(resource_path("p2p_bench", "world", "weights", part), tmp_path / part))
    (copy / file).write_bytes((copy / file).read_bytes()[:1000])
    with pytest.raises(MissingWeightsError, match=r"model\.safetensors cannot be read"):
        load_networks({"one": metric(copy)})


@pytest.mark.parametrize("text", ["[]", "{", '{"widths": "wide"}', '{"depth": 2}'])
@pytest.mark.parametrize("part", ["oracle_b", "lpips"])
def test_configurations_that_are_wrong(tmp_path: Path, part: str, text: str) -> None:
    copy = Path(shutil.copytree(resource_path("p2p_bench", "world", "weights", part), tmp_path / part))
    (copy / "config.json").write_text(text)
    with pytest.raises(MissingWeightsError, match=r"oracle|LPIPS"):
        load_networks({"one": FILES[part][1](copy)})


def test_loading_draws_nothing_from_the_global_generator() -> None:
    before = torch.random.get_rng_state()
    load_networks({"oracle": WorldAttributes(), "lpips": Lpips("world")})
    assert torch.equal(torch.random.get_rng_state(), before)
