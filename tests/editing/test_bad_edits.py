"""Edits that cannot be made are refused with a sentence."""

import dataclasses

import pytest
import torch

import p2p_bench as p2p
from p2p_bench.errors import ConfigError, DataError, ErrorList, P2PError, PromptError
from tests.models.tiny import tiny_model

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
