"""Structure distance and DINO-I against a ViT written out by hand, on a small random network."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn.functional import cosine_similarity, gelu, layer_norm, linear
from torchvision.transforms.functional import to_pil_image, to_tensor

from p2p_bench.errors import MissingWeightsError
from p2p_bench.metrics import EditView
from p2p_bench.metrics import dino_backbone as backbone
from p2p_bench.metrics.base import load_networks
from p2p_bench.metrics.dino_image import DinoImage
from p2p_bench.metrics.structure import StructureDistance
from tests.metrics.dino import random_dino
from tests.metrics.photographs import photo_views, photograph

State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_dino(tmp_path_factory.mktemp("dino"))


def by_hand(state: State, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Class token and keys of layer 11, (24,) and (785, 24), of a normalised 224 x 224 image, in float64."""
    state = {name: value.double() for name, value in state.items()}

    def apply(x: torch.Tensor, name: str) -> torch.Tensor:
        return linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return layer_norm(x, (24,), state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)

    patches = image.double().unfold(1, 8, 8).unfold(2, 8, 8).permute(1, 2, 0, 3, 4).reshape(784, 192)
    kernel = state["embeddings.patch_embeddings.projection.weight"].reshape(24, 192)
    tokens = linear(patches, kernel, state["embeddings.patch_embeddings.projection.bias"])
    x = torch.cat([state["embeddings.cls_token"][0], tokens]) + state["embeddings.position_embeddings"][0]
    keys = x
    for layer in range(12):
        at = f"encoder.layer.{layer}"
        y = norm(x, f"{at}.layernorm_before")
        q, keys, v = (apply(y, f"{at}.attention.attention.{part}") for part in ("query", "key", "value"))
        heads = (part.reshape(785, 3, 8).transpose(0, 1) for part in (q, keys, v))
        q_h, k_h, v_h = heads
        mixed = (q_h @ k_h.transpose(1, 2) / 8**0.5).softmax(-1) @ v_h
        x = x + apply(mixed.transpose(0, 1).reshape(785, 24), f"{at}.attention.output.dense")
        y = apply(norm(x, f"{at}.layernorm_after"), f"{at}.intermediate.dense")
        x = x + apply(gelu(y), f"{at}.output.dense")
    return norm(x, "layernorm")[0], keys


def prepared(image: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return (image - mean) / std


def test_scores_are_those_of_the_formula(folder: Path) -> None:
    """Images of 224 pixels, so that nothing is resized."""
    state = load_file(folder / "model.safetensors")
    views = photo_views(224, 224)[:2]
    ours = [
        {**a, **b} for a, b in zip(StructureDistance(folder)(views), DinoImage(folder)(views), strict=True)
    ]
    for row, view in zip(ours, views, strict=True):
        (token, keys), (other, moved) = (by_hand(state, prepared(i)) for i in (view.source, view.edited))
        a, b = (cosine_similarity(k[:, None], k[None], dim=-1) for k in (keys, moved))
        assert row["structure_distance"] == pytest.approx((a - b).square().mean().item(), rel=1e-3)
        assert row["dino_image"] == pytest.approx(cosine_similarity(token, other, dim=0).item(), abs=1e-4)
        assert row["structure_distance"] > 1e-5


def test_the_input_is_resized_as_pil_does() -> None:
    image = photograph("coffee", 400, 400)
    pil = to_pil_image(image).resize((224, 224), Image.Resampling.BILINEAR)
    difference = (backbone.dino_input(image) - prepared(to_tensor(pil))).abs()
    assert difference.max() < 1.5 / 255 / 0.22
    assert backbone.dino_input(torch.zeros(3, 100, 400)).shape == (3, 120, 480)


def test_each_image_passes_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    structure, image = StructureDistance(folder), DinoImage(folder)
    load_networks({"structure": structure, "image": image})
    network = structure.network(torch.device("cpu"))
    assert image.network(torch.device("cpu")) is network
    network._memo.clear()
    calls: list[int] = []
    forward = backbone.DinoNetwork._forward
    monkeypatch.setattr(
        backbone.DinoNetwork, "_forward", lambda self, one: (calls.append(1), forward(self, one))[1]
    )
    view = photo_views(64, 80)[0]
    views = [
        view,
        EditView(view.source, 1 - view.edited, "a", "b"),
        EditView(view.source, view.source, "a", "b"),
    ]
    rows = structure(views)
    image(views)
    assert len(calls) == 3  # the source and two edits
    assert rows[2]["structure_distance"] == 0


def test_absent_and_wrong_weights(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbone, "try_to_load_from_cache", lambda repository, name: None)
    with pytest.raises(MissingWeightsError, match=r"run `hf download facebook/dino-vitb8`") as caught:
        StructureDistance().check()
    assert caught.value.exit_code == 3
    with pytest.raises(MissingWeightsError, match=r"are not in .*none"):
        DinoImage(tmp_path / "none").check()
    monkeypatch.setattr(backbone, "try_to_load_from_cache", lambda repository, name: str(folder / name))
    assert StructureDistance().files() == (folder / "model.safetensors", folder / "config.json")
    (tmp_path / "few").mkdir()
    with pytest.raises(MissingWeightsError, match="no layer 11"):
        StructureDistance(random_dino(tmp_path / "few", 2)).load()
    with pytest.raises(MissingWeightsError, match=r"width 24 with patches of 16 pixels.*dino-vitb8"):
        StructureDistance(random_dino(tmp_path / "b16", patch=16)).load()
    with pytest.raises(MissingWeightsError, match=r"width 384 with patches of 8 pixels.*dino-vitb8"):
        StructureDistance(random_dino(tmp_path / "s8", width=384)).load()


@pytest.mark.parametrize("fault", ["missing", "zero", "shape"])
def test_damaged_weights(folder: Path, tmp_path: Path, fault: str) -> None:
    state = load_file(folder / "model.safetensors")
    name = "encoder.layer.11.attention.attention.key.weight"
    if fault == "missing":
        del state[name]
    else:
        state[name] = torch.zeros_like(state[name]) if fault == "zero" else state[name][:3].contiguous()
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(MissingWeightsError, match="DINO"):
        StructureDistance(tmp_path).load()
