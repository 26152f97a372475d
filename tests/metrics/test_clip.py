"""CLIP scores against open_clip itself, on a tiny random network in open_clip's folder format."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision.transforms.functional import to_pil_image

from p2p_bench.errors import ConfigError, MissingWeightsError
from p2p_bench.metrics import ClipScore, EditView
from p2p_bench.metrics import clip_backbone as backbone
from p2p_bench.metrics.base import metric_checksums, split_reasons
from p2p_bench.metrics.clip import UNMOVED, clip_score, directional_similarity
from p2p_bench.metrics.clip_image import ClipImage
from p2p_bench.metrics.pie_clip import PieClip
from p2p_bench.world.training.tokenizer import write_tokenizer

PROMPTS = ("a red circle on grass", "a blue circle on grass")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP of one layer per tower, random weights, half precision."""
    path = tmp_path_factory.mktemp("clip")
    write_tokenizer(PROMPTS, 8, path)
    vocabulary = len(json.loads((path / "vocab.json").read_text()))
    config = {
        "model_cfg": {
            "embed_dim": 16,
            "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
            "text_cfg": {
                "context_length": 24,
                "vocab_size": vocabulary,
                "width": 32,
                "heads": 2,
                "layers": 1,
                "hf_tokenizer_name": "local",
            },
        },
        "preprocess_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]},
    }
    (path / "open_clip_config.json").write_text(json.dumps(config))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = open_clip.create_model(f"local-dir:{path}", load_weights=False)
    weights = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    save_file(weights, path / "open_clip_model.safetensors")
    return path


@pytest.fixture
def views() -> list[EditView]:
    """Three edits of 40 x 40 pixels that share source and prompts, the last one without a change."""
    generator = torch.Generator().manual_seed(1)
    source, first, second = torch.rand(3, 3, 40, 40, generator=generator)
    return [EditView(source, edited, *PROMPTS) for edited in (first, second, source)]


def test_scores_are_those_of_open_clip(folder: Path, views: list[EditView]) -> None:
    rows = ClipScore(backbone="tiny", weights=folder)(views)
    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(list(PROMPTS))
    with torch.no_grad():
        source_text, target_text = model.encode_text(tokens, normalize=True)
        for row, view in zip(rows, views, strict=True):
            image = preprocess(to_pil_image((view.edited * 255).round().byte()))
            features = model.encode_image(image[None], normalize=True)[0]
            source = preprocess(to_pil_image((view.source * 255).round().byte()))
            source_features = model.encode_image(source[None], normalize=True)[0]
            assert row["clip_source"] == pytest.approx(100 * float(features @ source_text), abs=1e-4)
            assert row["clip_target"] == pytest.approx(100 * float(features @ target_text), abs=1e-4)
            if view.edited is not view.source:
                change, text_change = features - source_features, target_text - source_text
                cosine = torch.nn.functional.cosine_similarity(change, text_change, dim=0)
                assert row["clip_direction"] == pytest.approx(float(cosine), abs=1e-4)


def test_no_change_has_no_direction(folder: Path, views: list[EditView]) -> None:
    metric = ClipScore(backbone="tiny", weights=folder)
    same_prompts = EditView(views[0].source, views[0].edited, PROMPTS[0], PROMPTS[0])
    rows = metric([*views, same_prompts])
    assert [math.isnan(row["clip_direction"]) for row in rows] == [False, False, True, True]
    assert [list(split_reasons(row)[1].values()) for row in rows] == [[], [], [UNMOVED], [UNMOVED]]
    assert metric([]) == []


def test_a_prompt_that_clip_cannot_read_to_its_end_is_not_scored(folder: Path, views: list[EditView]) -> None:
    """The tiny network reads 24 tokens, begin and end included."""
    metric, image = ClipScore(backbone="tiny", weights=folder), views[0]
    fits, long, other = (" ".join(["red"] * count) for count in (22, 23, 24))
    prompts = [(fits, PROMPTS[0]), (PROMPTS[0], long), (long, PROMPTS[0]), (long, other)]
    rows = metric([EditView(image.source, image.edited, *pair) for pair in prompts])
    missing = [sorted(split_reasons(row)[1]) for row in rows]
    assert missing == [
        [],
        ["clip_direction", "clip_target"],
        ["clip_direction", "clip_source"],
        ["clip_direction", "clip_source", "clip_target"],
    ]
    for row, without in zip(rows, missing, strict=True):
        assert [name for name, value in sorted(row.items()) if math.isnan(value)] == without
    reasons = {reason for row in rows for reason in split_reasons(row)[1].values()}
    assert reasons == {"the prompt is longer than the 22 tokens that CLIP reads"}


def test_clips_own_tokenizer_says_what_it_cuts() -> None:
    tokens = open_clip.get_tokenizer("ViT-B-32")
    network = backbone.ClipNetwork.__new__(backbone.ClipNetwork)
    network.tokenizer = tokens
    texts = [" ".join(["cat"] * count) for count in (1, 75, 76, 200)]
    assert network.context == 77
    assert network.cuts([*texts, texts[0]]) == [False, False, True, True, False]


def test_equal_inputs_are_encoded_once(
    folder: Path, views: list[EditView], monkeypatch: pytest.MonkeyPatch
) -> None:
    metric = ClipScore(backbone="tiny", weights=folder)
    first = metric(views)
    network = metric.network(torch.device("cpu"))
    counts: list[int] = []

    def counting(inputs: torch.Tensor, encode: object) -> torch.Tensor:
        counts.append(len(inputs))
        return backbone.ClipNetwork._encode(network, inputs, encode)

    monkeypatch.setattr(network, "_encode", counting)
    network._images.clear()
    network._texts.clear()
    assert str(metric(views)) == str(first)
    assert counts == [3, 2]  # source and two edits; two prompts
    other = ClipImage(backbone="tiny", weights=folder)
    assert other.network(torch.device("cpu")) is network
    metric(views)
    other(views)
    assert counts == [3, 2]  # neither a later batch nor another metric asks again


def test_other_views_do_not_matter(folder: Path, views: list[EditView]) -> None:
    metric = ClipScore(backbone="tiny", weights=folder)
    together, alone = metric(views)[1], metric(views[1:2])[0]
    assert together == pytest.approx(alone, abs=1e-4)


def test_loading_leaves_the_global_generator_alone(folder: Path, views: list[EditView]) -> None:
    before = torch.random.get_rng_state()
    ClipScore(backbone="tiny", weights=folder)(views)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_file_for_a_built_in_architecture(
    folder: Path, tmp_path: Path, views: list[EditView], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An architecture by name and a safetensors file, with CLIP's own tokenizer."""
    config = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    config["text_cfg"].pop("hf_tokenizer_name")
    config["text_cfg"].update(vocab_size=49408, context_length=77)
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny-test", config)
    with torch.random.fork_rng(devices=[]):
        model = open_clip.create_model("tiny-test")
    path = tmp_path / "weights.safetensors"
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, path)
    metric = ClipScore(backbone="named", model="tiny-test", weights=path)
    metric.check()
    row = metric(views)[0]
    with torch.no_grad():
        text = model.encode_text(open_clip.get_tokenizer("tiny-test")(PROMPTS[1]), normalize=True)[0]
        preprocess = open_clip.image_transform(32, is_train=False)
        image = preprocess(to_pil_image((views[0].edited * 255).round().byte()))
        features = model.eval().encode_image(image[None], normalize=True)[0]
    assert row["clip_target"] == pytest.approx(100 * float(features @ text), abs=1e-4)


def test_a_tag_is_looked_for_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metric = ClipScore(backbone="openai", model="ViT-L-14-quickgelu", weights="openai")
    monkeypatch.setattr(backbone, "try_to_load_from_cache", lambda repository, name: None)
    with pytest.raises(MissingWeightsError, match="run `hf download timm/vit_large") as info:
        metric.check()
    assert info.value.exit_code == 3
    monkeypatch.setattr(backbone, "try_to_load_from_cache", lambda repository, name: str(tmp_path / name))
    files = backbone.locate_clip("ViT-L-14-quickgelu", "openai")
    assert files.weights == tmp_path / "open_clip_model.safetensors"
    assert files.preprocess["mean"] == pytest.approx((0.48145466, 0.4578275, 0.40821073))


def test_absent_weights(tmp_path: Path) -> None:
    with pytest.raises(MissingWeightsError, match=r"open_clip_config\.json is not there"):
        ClipScore(backbone="mine", weights=tmp_path).check()
    (tmp_path / "open_clip_config.json").write_text("{}")
    (tmp_path / "open_clip_model.bin").touch()
    with pytest.raises(MissingWeightsError, match=r"open_clip_model\.safetensors is not there"):
        ClipScore(backbone="mine", weights=tmp_path).check()
    with pytest.raises(MissingWeightsError, match=r"none\.safetensors is not there"):
        ClipScore(backbone="mine", model="ViT-B-32", weights=tmp_path / "none.safetensors").check()


def test_wrong_arguments(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'world' stands for the embedded network alone"):
        ClipScore(weights=tmp_path)
    with pytest.raises(ConfigError, match="every other label needs weights"):
        ClipScore(backbone="mine")
    with pytest.raises(ConfigError, match="needs weights"):
        ClipScore(backbone="mine", model="ViT-B-32").check()
    with pytest.raises(ConfigError, match=r"knows no model 'ViT-B-23'\. Did you mean 'ViT-B-32'"):
        ClipScore(backbone="mine", model="ViT-B-23", weights="openai").check()
    with pytest.raises(ConfigError, match=r"expected a \.safetensors file or one of the tags openai"):
        ClipScore(backbone="mine", model="ViT-B-32", weights="weights.bin").check()
    with pytest.raises(ConfigError, match="leave out model"):
        ClipScore(backbone="mine", model="ViT-B-32", weights=tmp_path).check()


@pytest.mark.parametrize("model", ["ViT-L-14", "ViT-B-32"])
def test_weights_of_another_activation_are_refused(model: str) -> None:
    with pytest.raises(ConfigError, match=f"QuickGELU.*set model={model}-quickgelu"):
        backbone.locate_clip(model, "openai")


@pytest.mark.parametrize("metric", [ClipScore, ClipImage, PieClip])
def test_the_label_of_openais_network_is_of_no_other(metric: Any, tmp_path: Path) -> None:
    for model, weights in (
        ("ViT-B-32-quickgelu", "openai"), ("ViT-L-14", tmp_path / "a.safetensors"),
        ("ViT-L-14-quickgelu", "dfn2b"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match="give another network a label of its own"):
            metric(backbone="openai-ViT-L-14", model=model, weights=weights)
        metric(backbone="mine", model=model, weights=weights)
    metric(backbone="openai-ViT-L-14", model="ViT-L-14-quickgelu", weights=tmp_path / "a.safetensors")


def test_pictures_are_rounded_and_finite() -> None:
    picture = backbone._to_picture(torch.tensor([0.0, 0.4999, 1.2]).view(3, 1, 1))
    assert isinstance(picture, Image.Image)
    assert picture.getpixel((0, 0)) == (0, 127, 255)
    with pytest.raises(ValueError, match="not finite"):
        backbone._to_picture(torch.full((3, 2, 2), torch.nan))


def test_formulas() -> None:
    a, b = torch.eye(2)[:1], torch.eye(2)[1:]
    assert clip_score(a, -a).item() == -100
    assert directional_similarity(a, b, b, a).item() == pytest.approx(-1)
    assert directional_similarity(a, a, a, b).isnan().all()


@pytest.mark.parametrize("file", ["open_clip_config.json", "vocab.json", "tokenizer_config.json"])
def test_what_decides_scores_beside_the_weights_is_another_network(
    folder: Path, views: list[EditView], tmp_path: Path, file: str
) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "clip"))
    first = ClipScore(backbone="tiny", weights=copy)
    before, (score, *_) = metric_checksums({"clip": first}), first(views)
    text = (copy / file).read_text()
    changed = (
        text.replace("0.5, 0.4, 0.3", "0.1, 0.4, 0.3") if file == "open_clip_config.json" else text + " "
    )
    (copy / file).write_text(changed)
    second = ClipScore(backbone="tiny", weights=copy)
    assert metric_checksums({"clip": second}) != before
    (again, *_) = second(views)
    assert (again == score) == (file != "open_clip_config.json"), "not the network that was loaded before"


def test_pictures_and_the_edited_region(folder: Path, views: list[EditView]) -> None:
    mask = torch.zeros(40, 40)
    mask[3:20, 10:33] = 1
    masked = [replace(view, mask=mask) for view in views]
    rows = ClipImage(backbone="tiny", weights=folder)([*masked, views[0]])
    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    text = open_clip.get_tokenizer(f"local-dir:{folder}")([PROMPTS[1]])
    with torch.no_grad():

        def features(image: torch.Tensor) -> torch.Tensor:
            picture = to_pil_image((image * 255).round().byte())
            return model.encode_image(preprocess(picture)[None], normalize=True)[0]

        target = model.encode_text(text, normalize=True)[0]
        for row, view in zip(rows, masked, strict=False):
            alike = float(features(view.source) @ features(view.edited))
            assert row["clip_image"] == pytest.approx(alike, abs=1e-5)
            black = view.edited.clone()
            black[:, mask == 0] = 0
            assert row["clip_target_inside"] == pytest.approx(100 * float(features(black) @ target), abs=1e-4)
    assert rows[2]["clip_image"] == pytest.approx(1)
    assert split_reasons(rows[3])[1] == {"clip_target_inside": "there is no mask"}
    long = replace(masked[0], target_prompt=" ".join(["red"] * 23))
    (row,) = ClipImage(backbone="tiny", weights=folder)([long])
    assert list(split_reasons(row)[1]) == ["clip_target_inside"]
    assert ClipImage(backbone="tiny", weights=folder)([]) == []
