"""The Python API: names, wrong arguments, and what a notebook shows."""

import inspect
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import p2p_bench as p2p
from p2p_bench.app import api
from p2p_bench.app import edit as app_edit
from p2p_bench.editing.images import as_source_image
from p2p_bench.editing.result import EditResult
from p2p_bench.errors import P2PError
from tests.models.tiny import tiny_checkpoint, tiny_model

SOURCE, TARGET = "a red circle on grass", "a blue circle on grass"


@pytest.fixture
def edit(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`p2p.edit` as a user has it: without the types that this session of tests enforces."""
    monkeypatch.setattr(app_edit, "as_source_image", inspect.unwrap(as_source_image))
    unhooked = inspect.unwrap(app_edit.edit)

    def run(
        model: Any = None, source: Any = SOURCE, targets: Any = TARGET, *rest: Any, **options: Any
    ) -> Any:
        return unhooked(
            tiny_model() if model is None else model, source, targets, *rest, **{"steps": 1, **options}
        )

    return run


def test_harmless_kin_of_the_types_are_taken(edit: Any) -> None:
    plain = edit(seed=3, steps=2, guidance=2.0)
    for options in (
        {"seed": np.int64(3), "steps": np.int32(2), "guidance": np.float32(2)},
        {"seed": torch.tensor(3), "steps": np.uint8(2), "guidance": torch.tensor(2.0), "truncate": np.False_},
        {"seed": np.array(3), "steps": 2, "guidance": 2, "record": np.True_},
    ):
        assert torch.equal(edit(**options).latents, plain.latents)
    assert torch.equal(edit(targets=(TARGET,), seed=3, steps=2, guidance=2.0).latents, plain.latents)
    assert torch.equal(edit(targets=np.array([TARGET]), seed=3, steps=2, guidance=2.0).latents, plain.latents)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "model": ({"model": "world"}, "model: expected a model, as load_model gives it, got 'world'"),
    "source": ({"source": 3}, "source: expected text, got 3"),
    "source list": ({"source": [SOURCE]}, "source: expected text, got list"),
    "targets": ({"targets": 3}, "targets: expected a text or a list of texts, got 3"),
    "targets None": ({"targets": None}, "targets: expected a text or a list of texts, got None"),
    "targets bytes": ({"targets": b"a cat"}, "targets: expected a text or a list of texts"),
    "targets mixed": ({"targets": [TARGET, 3]}, "targets[1]: expected text, got 3"),
    "no targets": ({"targets": []}, "targets: expected at least one"),
    "controller": ({"controller": 3}, "controller: expected a controller, such as Replace()"),
    "controller class": ({"controller": p2p.Replace}, "controller: expected a controller, such as Replace()"),
    "controller in a dict": ({"controller": {"a": p2p.Replace()}}, "controller: expected a controller"),
    "controllers": ({"controller": [p2p.Replace(), 3]}, "controller[1]: expected a controller"),
    "too many": ({"controller": [p2p.Replace()] * 2}, "expected one, or one per target (1), got 2"),
    "controller's name": ({"controller": "replce"}, "controller: there is no 'replce'"),
    "name without values": ({"controller": "reweight"}, "controller: 'reweight' needs weights too"),
    "a long name": ({"controller": "x" * 5000}, "controller: there is no 'xxx"),
    "inversion": ({"inversion": 3}, "inversion: expected an inversion, such as DDIMInversion(), got 3"),
    "inversion's name": ({"inversion": "dim"}, "Did you mean 'ddim'?"),
    "inversion alone": ({"inversion": "ddim"}, "inversion: no image to invert"),
    "inversion prompt": (
        {"image": torch.zeros(3, 16, 16), "inversion_prompt": 3},
        "inversion_prompt: expected",
    ),
    "image": ({"image": 3}, "image: expected a path, a PIL image, a NumPy array or a tensor, got int"),
    "image range": ({"image": np.full((4, 4, 3), 255.0)}, "image: expected finite values in [0, 1]"),
    "image path": ({"image": "nowhere.png"}, "nowhere.png: no such image file"),
    "fit": ({"image": torch.zeros(3, 16, 16), "fit": 3}, "fit: expected one of crop"),
    "noise": ({"noise": np.zeros((4, 8, 8))}, "noise: expected a float tensor (c, h, w)"),
    "noise integers": ({"noise": torch.zeros(4, 8, 8, dtype=torch.int64)}, "got torch.int64 (4, 8, 8)"),
    "noise shape": ({"noise": torch.zeros(4, 9, 8)}, "noise: expected the latent shape"),
    "noise without values": ({"noise": torch.zeros(4, 8, 8, device="meta")}, "with values, got Tensor"),
    "seed": ({"seed": "3"}, "seed: expected an integer, got '3'"),
    "seed float": ({"seed": 3.0}, "seed: expected an integer, got 3.0"),
    "seed bool": ({"seed": True}, "seed: expected an integer, got True"),
    "seed below": ({"seed": -1}, "seed: expected an integer in [0, 2**64), got -1"),
    "seed above": ({"seed": 10**400}, "seed: expected an integer in [0, 2**64), got int"),
    "seeds": ({"seed": torch.tensor([1, 2])}, "seed: expected an integer, got Tensor"),
    "steps": ({"steps": "4"}, "steps: expected an integer, got '4'"),
    "steps float": ({"steps": 4.0}, "steps: expected an integer, got 4.0"),
    "no steps": ({"steps": 0}, "steps: expected at least 1, got 0"),
    "guidance": ({"guidance": "7"}, "guidance: expected a number, got '7'"),
    "guidance NaN": ({"guidance": float("nan")}, "guidance: expected a finite number"),
    "guidance huge": ({"guidance": 10**400}, "guidance: expected a finite number, got int"),
    "guidances": ({"guidance": [7.5]}, "guidance: expected a number, got list"),
    "eta": ({"eta": None}, "eta: expected a number, got None"),
    "eta above": ({"eta": 2.0}, "eta"),
    "record": ({"record": "all"}, "record: expected true or false, got 'all'"),
    "truncate": ({"truncate": 1}, "truncate: expected true or false, got 1"),
    "progress": ({"progress": 3}, "progress: expected a function of"),
    "cache": ({"cache": "/tmp"}, "cache: expected a Cache, got '/tmp'"),
    "repair": ({"repair": "words"}, "repair: expected true or false, got 'words'"),
}


@pytest.mark.parametrize(("options", "said"), WRONG.values(), ids=WRONG)
def test_a_wrong_argument_is_named_in_a_sentence(edit: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(P2PError) as info:
        edit(**options)
    assert said in str(info.value)
    assert len(str(info.value)) < 600


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"device": "gpu"},
            "device: expected cpu, cuda, mps or a torch.device, got 'gpu'. Did you mean 'cuda'?",
        ),
        ({"device": 3.5}, "device: expected cpu"),
        ({"device": None}, "device: expected cpu"),
        ({"device": "cuda:99"}, "device: 'cuda:99' is not on this machine"),
        ({"device": "meta"}, "device: expected cpu"),
        ({"dtype": "float"}, "dtype: expected one of float64, float32"),
        ({"dtype": torch.int8}, "dtype: expected one of"),
        ({"name": None}, "name: expected the name or the directory of a model, got NoneType"),
        ({"name": "wrld"}, "Did you mean 'world'?"),
        ({"name": "x" * 5000}, "model: there is no 'xxx"),
        ({"name": "a\0b"}, "model: there is no"),
        ({"name": "~nobody-of-this-name"}, "model: there is no"),
        ({"name": "local"}, "model.path"),
    ],
)
def test_load_model_refuses_in_a_sentence(options: dict[str, Any], said: str) -> None:
    with pytest.raises(P2PError) as info:
        inspect.unwrap(api.load_model)(**{"name": "world", **options})
    assert said in str(info.value)


def test_a_number_format_by_name() -> None:
    assert p2p.load_model(tiny_checkpoint().path, dtype="float64").dtype == torch.float64


def test_controllers_by_name_are_those_of_the_command_line() -> None:
    for name, made in (("replace", p2p.Replace(0.8, 0.4)), ("none", p2p.NoControl()), ("auto", p2p.ByEdit())):
        by_name = p2p.edit(tiny_model(), SOURCE, TARGET, name, steps=2)
        assert torch.equal(by_name.latents, p2p.edit(tiny_model(), SOURCE, TARGET, made, steps=2).latents), (
            name
        )
    two = p2p.edit(tiny_model(), SOURCE, [TARGET, TARGET], ("replace", p2p.NoControl()), steps=2)
    assert not torch.equal(two.latents[1], two.latents[2])


def test_only_what_is_public_is_listed() -> None:
    assert set(dir(p2p)) == {*p2p.__all__, "__version__"}
    assert all(hasattr(p2p, name) for name in dir(p2p))
    assert p2p.__version__.count(".") == 2


def test_a_result_shows_itself(tmp_path: Path) -> None:
    result = p2p.edit(tiny_model(), SOURCE, [TARGET, "a star\non\tgrass"], steps=1)
    assert repr(result) == (
        f"EditResult('{SOURCE}' -> '{TARGET}', 'a star\\\\non\\\\tgrass'; 3 images of 16 x 16, 6 UNet rows)"
    )
    png = result._repr_png_()
    assert png is not None
    with Image.open(io.BytesIO(png)) as shown:
        assert shown.size == (8 + 3 * (12 * 16 + 8), 20 + 8 + 12 * 16 + 8)
    pictures = result.pil()
    expected = (result.images[1] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    assert np.array_equal(np.asarray(pictures[1]), expected)
    paths = result.save(tmp_path / "new" / "folder")
    assert [path.name for path in paths] == ["source.png", "target_1.png", "target_2.png", "strip.png"]
    with Image.open(paths[1]) as saved:
        assert np.array_equal(np.asarray(saved), expected)
    assert result.heatmap_image("circle").size == (192, 192)
    assert result.heatmap_image("blue", side=16).size == (16, 16)
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(P2PError, match="save: the pictures cannot be written"):
        result.save(tmp_path / "taken")


def test_a_failed_result_shows_its_error() -> None:
    targets = (p2p.Target(TARGET, p2p.Reweight({"circle": 1e308})), p2p.Target(TARGET))
    half, none = p2p.run_edits(
        tiny_model(),
        [p2p.EditRequest("half", SOURCE, targets), p2p.EditRequest("none", " ", targets)],
        steps=2,
    )
    assert half.error is not None
    assert repr(half).endswith("1 failed)")
    assert half._repr_png_() is not None
    assert none._repr_png_() is None
    assert "\n" not in repr(none)
    for result in (half, none):
        with pytest.raises(P2PError):
            result.pil()


def test_models_and_controllers_are_one_line() -> None:
    assert repr(tiny_model(torch.float32)) == "StableDiffusion('tiny', 16 x 16 pixels, float32 on cpu)"
    for controller in (
        p2p.Replace(), p2p.Refine(), p2p.Reweight({"red": 2.0}, inner=p2p.Replace()), p2p.MasaCtrl(),
        p2p.LocalBlend(p2p.ByEdit(), mask=torch.ones(64, 64)), p2p.paper(), p2p.DDIMInversion(),
    ):  # fmt: skip
        assert "\n" not in repr(controller)
        assert len(repr(controller)) < 500, repr(controller)


def test_a_word_of_another_kind_is_named_too() -> None:
    result = p2p.edit(tiny_model(), SOURCE, TARGET, steps=1)
    for asked in (EditResult.heatmaps, EditResult.heatmap_image):
        with pytest.raises(P2PError, match="word: expected text, got 3"):
            inspect.unwrap(asked)(result, 3)
