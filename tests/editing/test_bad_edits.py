"""Edits that cannot be made are refused with a sentence."""

import dataclasses

import numpy
import pytest
import torch

import p2p_bench as p2p
from p2p_bench.editing import EditRequest, Target, run_edits
from p2p_bench.editing.by_hand import check_kept, check_settings, checked_requests
from p2p_bench.errors import ConfigError, DataError, ErrorList, P2PError, PromptError
from tests.models.tiny import tiny_model
from tests.unchecked import unchecked

SOURCE, SWAPPED = "a red circle on grass", "a blue circle on grass"
LONGER = "a small red circle on grass in fog"
SHAPE = (4, 8, 8)
LONG = "a red circle and a blue square and a green star on grass and sand"


@pytest.mark.parametrize(
    ("arguments", "kind", "said"),
    [
        ({"source": " "}, PromptError, "empty prompt"),
        ({"targets": [""]}, PromptError, "empty prompt"),
        ({"targets": []}, P2PError, "at least one target"),
        ({"targets": LONG}, PromptError, "1 token too long"),
        ({"targets": LONGER, "controller": p2p.Replace()}, PromptError, "words"),
        ({"controller": p2p.Reweight({"sqare": 2.0})}, PromptError, "sqare"),
        ({"controller": [p2p.Replace(), p2p.Replace()]}, P2PError, "one per target"),
        ({"steps": 0}, ConfigError, "steps"),
        ({"steps": 5000}, ConfigError, "1000"),
        ({"guidance": -1.0}, ConfigError, "guidance"),
        ({"guidance": float("nan")}, ConfigError, "guidance"),
        ({"guidance": 0.0}, ConfigError, "0 leaves the prompts out"),
        (
            {"inversion": p2p.EditFriendlyInversion(target_guidance=0.0), "image": torch.zeros(3, 16, 16)},
            ConfigError,
            "target_guidance=0 leaves the target prompts out",
        ),
        ({"eta": 1.5}, ConfigError, "eta"),
        ({"noise": torch.zeros(4, 4, 4)}, P2PError, "latent shape"),
        ({"noise": torch.zeros(2, 4, 8, 8)}, P2PError, "noise"),
        ({"inversion": p2p.DDIMInversion()}, P2PError, "no image"),
        ({"inversion": "ddmi", "image": torch.zeros(3, 16, 16)}, ConfigError, "Did you mean 'ddim'"),
        ({"image": torch.zeros(3, 8, 8)}, DataError, "8 x 8"),
        ({"image": torch.zeros(16, 16, 16)}, DataError, r"expected \(3, h, w\)"),
        ({"image": torch.full((3, 16, 16), 255.0)}, DataError, r"\[0, 1\]"),
        ({"image": torch.full((3, 16, 16), torch.nan)}, DataError, "finite"),
        ({"image": "no/such/file.png"}, DataError, "no such image"),
        ({"image": torch.zeros(3, 16, 16), "noise": torch.zeros(SHAPE)}, P2PError, "noise"),
        ({"image": torch.zeros(3, 16, 16), "eta": 1.0}, P2PError, "eta=0"),
    ],
)
def test_bad_input_is_refused(arguments: dict[str, object], kind: type[P2PError], said: str) -> None:
    call = {"source": SOURCE, "targets": SWAPPED, "steps": 2} | arguments
    with pytest.raises(kind, match=said):
        p2p.edit(tiny_model(), **call)


def test_all_faults_of_a_request_are_listed() -> None:
    with pytest.raises(ErrorList, match="2 faults") as caught:
        p2p.edit(tiny_model(), " ", LONG, steps=2)
    assert [type(error) for error in caught.value.errors] == [PromptError, PromptError]


def test_recording_where_nothing_can_be_recorded() -> None:
    model = tiny_model()
    model = dataclasses.replace(model, spec=dataclasses.replace(model.spec, record_fraction=0.25))
    assert p2p.edit(model, SOURCE, SWAPPED, steps=1).maps == {}
    with pytest.raises(ConfigError, match="record_fraction"):
        p2p.edit(model, SOURCE, SWAPPED, steps=1, record=True)


def test_truncation_is_an_option() -> None:
    result = p2p.edit(tiny_model(), LONG, LONG, truncate=True, steps=1)
    assert result.prompts[0].truncated


def test_an_edit_that_was_cut_off_is_refused() -> None:
    source = "a red cat and a blue dog on the soft green grass and a cat a cat"
    for target, controller in ((source + " a star", None), (source + " a star", p2p.Reweight({"dog": 2.0}))):
        with pytest.raises(PromptError, match="differ only where they were cut"):
            p2p.edit(tiny_model(), source, target, controller, truncate=True, steps=1)
    with pytest.raises(PromptError, match="alike, so there is nothing to edit"):
        p2p.edit(tiny_model(), "a red cat", "A red cat", steps=1)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"id": None}, r"requests\[1\]\.id: expected text, got None"),
        ({"source_prompt": 3}, r"source_prompt: expected text"),
        ({"targets": SWAPPED}, r"targets: expected a tuple of Target"),
        ({"targets": (SWAPPED,)}, r"targets\[0\]: expected a Target"),
        ({"targets": (unchecked(Target(SWAPPED), controller="replace"),)}, r"\[0\]\.controller: expected"),
        ({"targets": (unchecked(Target(SWAPPED), prompt=None),)}, r"targets\[0\]\.prompt: expected text"),
        ({"seed": "1"}, r"requests\[1\]\.seed: expected an integer, got '1'"),
        ({"seed": -1}, r"requests\[1\]\.seed: expected an integer in"),
        ({"noise": [0.0]}, r"noise: expected a tensor \(c, h, w\), or None"),
        ({"image": "a.png"}, r"image: expected a tensor"),
        ({"inversion": "ddim"}, r"inversion: expected an inversion, such as"),
        ({"guidance": "7"}, r"guidance: expected a number"),
        ({"inversion_prompt": 3}, r"inversion_prompt: expected text"),
        ({"repair": True}, r"repair: expected a Repair"),
    ],
)
def test_a_request_made_by_hand_is_refused_by_its_field(values: dict[str, object], said: str) -> None:
    good = EditRequest("good", SOURCE, (Target(SWAPPED),))
    with pytest.raises(ConfigError, match=said):
        run_edits(tiny_model(), [good, unchecked(good, **values)], steps=1)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"noise": torch.zeros(SHAPE, dtype=torch.int64)}, r"got torch.int64 \(4, 8, 8\)"),
        ({"noise": torch.full(SHAPE, torch.nan)}, "latents of sample 'good' are not finite"),
        ({"image": torch.zeros(16, 16)}, r"image: expected a float tensor \(3, h, w\), got .* \(16, 16\)"),
        ({"image": torch.zeros(1, 16, 16)}, r"image: expected a float tensor \(3, h, w\)"),
        ({"image": torch.zeros(3, 16, 16, dtype=torch.uint8)}, "got torch.uint8"),
        ({"image": torch.full((3, 16, 16), 1.5)}, r"image: expected values in \[0, 1\], got 1.5 to 1.5"),
        ({"image": torch.full((3, 16, 16), torch.nan)}, r"image: expected values in \[0, 1\], got nan"),
    ],
)
def test_values_of_a_request_are_its_own_fault(values: dict[str, object], said: str) -> None:
    good = EditRequest("good", SOURCE, (Target(SWAPPED),))
    method = p2p.DDIMInversion() if "image" in values else None
    made, refused = run_edits(tiny_model(), [good, unchecked(good, inversion=method, **values)], steps=1)
    assert made.error is None
    with pytest.raises(P2PError, match=said):
        raise refused.error or AssertionError


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("model", None, "model: expected a model"),
        ("steps", 2.0, "steps: expected an integer"),
        ("guidance", "7", "guidance: expected a number"),
        ("stepper", "ddim", "stepper: expected a step function"),
        ("spacing", "even", "spacing: expected one of leading"),
        ("max_rows", 1.5, "max_rows: expected an integer"),
        ("truncate", "no", "truncate: expected true or false"),
        ("progress", 3, "progress: expected a function"),
    ],
)
def test_settings_of_other_types_are_refused(name: str, value: object, said: str) -> None:
    good = {
        "model": tiny_model(), "steps": 1, "guidance": None, "stepper": None, "spacing": None, "max_rows": 80,
        "truncate": False, "progress": None,
    }  # fmt: skip
    check_settings(**good)
    with pytest.raises(ConfigError, match=said):
        check_settings(**{**good, name: value})


def test_what_is_no_list_of_requests_is_refused() -> None:
    request = EditRequest("one", SOURCE, (Target(SWAPPED),))
    for given in (None, "x", request, [None], [request, "x"]):
        with pytest.raises(ConfigError, match="requests"):
            checked_requests(given)
    assert checked_requests(one for one in [request]) == [request]
    (made,) = checked_requests([unchecked(request, seed=numpy.int64(3), guidance=numpy.float32(2))])
    assert (made.seed, made.guidance, type(made.seed)) == (3, 2.0, int)
    with pytest.raises(ConfigError, match="record: expected true or false"):
        check_kept("all", None)
    with pytest.raises(ConfigError, match="cache: expected a Cache, or None"):
        check_kept(False, "folder")
