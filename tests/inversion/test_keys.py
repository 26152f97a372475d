"""A setting of a checkpoint that can change an inversion keeps what was made under another value apart."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from p2p_bench.inversion import Inversion
from p2p_bench.inversion.base import read_sources, unserved
from p2p_bench.inversion.ddim import DDIMInversion
from p2p_bench.inversion.recall import pack, replay_key
from p2p_bench.models import Checkpoint, LocalCheckpoint
from tests.examples import SOURCE
from tests.models.families import FAMILIES

STEPS = 2

NOT_TRIED = {
    "path", "name", "variant", "revision", "upscaler", "upscaler_revision", "lora", "embeddings",
    "dtype", "compile", "attention_backend", "channels_last", "offload",
}  # fmt: skip
"""Where files lie, whose content the checksum tells, and what changes rounding alone."""

OTHER: Mapping[str, Any] = {
    "guidance": 2.5,
    "steps": 3,
    "self_fraction": 1.0,
    "record_fraction": 1.0,
    "null_text_learning_rate": 0.5,
    "unprompted": "zeros",
    "t5": False,
    "t5_tokens": 24,
    "size": 32,
    "consistency": True,
    "vae": "tiled",
    "true_cfg": True,
    "embedded": 1.5,
    "upscaler_steps": 10,
    "upscaler_guidance": 2.0,
    "upscaler_noise_level": 100,
    "guidance_interval": (0.0, 0.5),
}
"""Another value of each setting that is left."""


def made(checkpoint: Checkpoint, size: tuple[int, int], inversion: Inversion) -> tuple[str, bytes | None]:
    """The key of an inversion, and the inversion; None where the model cannot do it."""
    model = checkpoint.load(dtype=torch.float64)
    image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(1))
    if model.spec.image_size != size:
        image = torch.nn.functional.interpolate(image, model.spec.image_size)
    if unserved(inversion, model.spec) is not None:
        return "", None
    sources = read_sources(model, image, [SOURCE])
    method = inversion.for_model(model.spec)
    (replay,) = method.invert(model, sources, STEPS)
    return replay_key(method, model, sources, 0, STEPS), pack(replay)


@pytest.mark.parametrize("family", FAMILIES)
def test_another_inversion_is_under_another_key(family: str) -> None:
    checkpoint: Any = FAMILIES[family]()
    size = checkpoint.spec().image_size
    inversion = DDIMInversion(guidance=1.0)
    tried = {field.name for field in dataclasses.fields(checkpoint)} - NOT_TRIED
    assert tried <= set(OTHER), "a setting that is new here: give it another value, or say why not"
    others = set()
    bases = [checkpoint]
    if hasattr(checkpoint, "true_cfg"):
        bases.append(dataclasses.replace(checkpoint, true_cfg=True))
    for base in bases:
        key, replay = made(base, size, inversion)
        for name in sorted(tried):
            try:
                changed = dataclasses.replace(base, **{name: OTHER[name]})
                changed_key, changed_replay = made(changed, size, inversion)
            except ValueError:  # refused: nothing is computed
                continue
            if changed_replay != replay and changed_replay is not None:
                others.add(name)
                assert changed_key != key, name
    expected = {"FLUX.1": {"t5_tokens", "true_cfg", "embedded"}, "SD 3.5": {"t5", "t5_tokens"}}
    assert expected.get(family, set()) <= others


def test_what_a_family_is_told_is_known() -> None:
    fields = {field.name for family in FAMILIES.values() for field in dataclasses.fields(family())}  # type: ignore[arg-type]  # each is a dataclass
    assert {field.name for field in dataclasses.fields(LocalCheckpoint)} <= fields | NOT_TRIED
