import dataclasses
import importlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import p2p_bench as p2p
from p2p_bench.cache import Cache, read_entry
from p2p_bench.editing.run import run_edits
from p2p_bench.inversion import (
    DDIMInversion,
    DirectInversion,
    EditFriendlyInversion,
    Inversion,
    NegativePromptInversion,
    NoisingInversion,
    ProximalInversion,
    recall,
)
from p2p_bench.inversion.base import Sources, read_sources
from p2p_bench.inversion.recall import invert_or_recall, pack, replay_key, settings_of, unpack
from p2p_bench.models import DiffusionModel
from p2p_bench.sampling import Replay
from tests.inversion.runs import OTHER, SOURCE, TARGET, distance, edited, encoded, images
from tests.models.tiny import tiny_model

METHODS = [
    DDIMInversion(),
    NegativePromptInversion(),
    ProximalInversion(),
    ProximalInversion(inversion_guidance=True, threshold=0.1),
    DirectInversion(scale=0.5),
    EditFriendlyInversion(0.25, 3.5),
    EditFriendlyInversion(1.0),
    NoisingInversion(0.5),
]


def of(model: DiffusionModel, **changes: Any) -> DiffusionModel:
    return dataclasses.replace(model, **changes)


def with_spec(model: DiffusionModel, **changes: Any) -> DiffusionModel:
    return of(model, spec=dataclasses.replace(model.spec, **changes))


def with_schedule(model: DiffusionModel, **changes: Any) -> DiffusionModel:
    return of(model, schedule=dataclasses.replace(model.schedule, **changes))


def key(**changes: Any) -> str:
    settings = {
        "inversion": ProximalInversion(), "model": tiny_model(), "image": images(1)[0], "prompt": SOURCE,
        "steps": 4, "seed": 1,
    } | changes  # fmt: skip
    model = settings["model"]
    prompt = settings["prompt"]
    prompt = model.tokenize(prompt) if isinstance(prompt, str) else prompt
    # Of the latents nothing is part of the key: their pixels are.
    nothing = torch.zeros(1, *encoded().shape)
    sources = Sources(settings["image"][None], nothing, (prompt,), {}, (settings["seed"],))
    return replay_key(settings["inversion"], model, sources, 0, settings["steps"])


def test_the_key_misses_on_each_part() -> None:
    model = tiny_model()
    nudged = images(1)[0].clone()
    nudged[0, 0, 0] += 1e-6
    keys = [
        key(),
        key(image=nudged),
        key(image=images(1)[0].double()),
        key(image=images(1)[0].flip(2)),
        key(prompt=TARGET),
        key(steps=5),
        key(prompt=model.tokenize(" ".join([SOURCE] * 6), truncate=True)),
        key(prompt=dataclasses.replace(model.tokenize(SOURCE), ids=model.tokenize(TARGET).ids)),
        key(model=with_spec(model, checksum="other")),
        key(model=tiny_model(torch.float32)),
        key(model=with_schedule(model, final_alpha_cumprod=1.0)),
        key(model=with_schedule(model, alphas_cumprod=model.schedule.alphas_cumprod * 0.999)),
        key(model=with_schedule(model, timestep_spacing="trailing")),
        key(model=with_spec(model, prediction_type="v_prediction")),
        key(inversion=NegativePromptInversion()),
        key(inversion=ProximalInversion(quantile=0.71)),
        key(inversion=ProximalInversion(threshold=0.0)),
        key(inversion=ProximalInversion(guidance=2.0)),
        key(inversion=ProximalInversion(as_released=True)),
        key(inversion=EditFriendlyInversion()),
        key(inversion=EditFriendlyInversion(), seed=2),
    ]
    assert len(set(keys)) == len(keys)


def test_the_key_hits_on_everything_else() -> None:
    model = tiny_model()
    assert key() == key(seed=2)
    assert key() == key(image=images(1)[0].clone())
    assert key() == key(inversion=ProximalInversion())
    assert key() == key(model=with_spec(model, name="other", guidance=3.0, self_fraction=1.0))
    strided = images(1)[0].permute(1, 2, 0).contiguous().permute(2, 0, 1)
    assert not strided.is_contiguous()
    assert key() == key(image=strided)


def test_other_code_is_another_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key()
    monkeypatch.setattr(recall, "_code_digest", lambda: "other")
    assert key() != before


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_replays_survive_packing(method: Inversion) -> None:
    model = tiny_model()
    (replay,) = method.invert(model, read_sources(model, images(1), [SOURCE], [3]), 4)
    back = unpack(pack(replay), method, model.device)
    assert type(back) is type(replay)
    for field in dataclasses.fields(replay):  # type: ignore[arg-type]  # every replay is a dataclass
        value, found = getattr(replay, field.name), getattr(back, field.name)
        if isinstance(value, Mapping):
            assert list(value) == list(found)
            assert all(torch.equal(value[name], found[name]) for name in value)
        elif isinstance(value, Tensor):
            assert value.dtype == found.dtype
            assert torch.equal(value, found)
        else:
            assert value == found


@dataclass(frozen=True, eq=False)
class Odd(Replay):
    """A replay of every kind of field."""

    parts: tuple[Any, ...]
    nothing: None = None

    @property
    def start(self) -> tuple[Tensor, ...]:
        return self.parts[0]

    @property
    def unet_rows(self) -> int:
        return 3


@dataclass(frozen=True)
class OddInversion(Inversion):
    parts: Any = ()

    def invert(self, model: Any, sources: Sources, *rest: Any, **options: Any) -> Sequence[Replay]:
        return [Odd(self.parts)] * len(sources)


def test_nested_fields_are_packed_and_others_refused() -> None:
    parts = ((torch.ones(2), torch.zeros(0, 3)), "text", 2.5, True, DDIMInversion(2.0), float("nan"))
    back = unpack(pack(Odd(parts)), OddInversion(), torch.device("cpu"))
    assert isinstance(back, Odd)
    assert torch.equal(back.parts[0][0], torch.ones(2))
    assert back.parts[0][1].shape == (0, 3)
    assert back.parts[1:5] == parts[1:5]
    assert back.parts[5] != back.parts[5]
    with pytest.raises(TypeError, match=r"replay\.parts\.0: a function cannot be kept"):
        pack(Odd((lambda: None,)))
    with pytest.raises(TypeError, match="a setting of type function"):
        settings_of(OddInversion(parts=(lambda: None,)))


def test_only_classes_of_the_methods_own_module_are_made() -> None:
    body = pack(Odd(((torch.ones(1),),)))
    with pytest.raises(ValueError, match="'Odd' is no dataclass of this method's module"):
        unpack(body, EditFriendlyInversion(), torch.device("cpu"))
    for damaged in (b"", body[:20], body[:-1], body.replace(b"parts", b"parrs")):
        with pytest.raises(ValueError, match="not a replay of OddInversion"):
            unpack(damaged, OddInversion(), torch.device("cpu"))


@pytest.mark.parametrize("method", METHODS[:6], ids=str)
def test_what_was_inverted_is_not_inverted_again(method: Inversion, tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    first = edited(method, cache=cache)
    assert not first.inversion_recalled
    assert first.unet_rows_spent == first.unet_rows
    again = edited(method, cache=cache)
    assert again.inversion_recalled
    assert torch.equal(again.latents, first.latents)
    assert again.unet_rows == first.unet_rows
    assert again.unet_rows_spent == again.source_rows + sum(again.target_rows)
    # Nothing of the edit is part of the key.
    weighted = p2p.Reweight({"a": 2.0}, inner=p2p.Refine())
    other = edited(method, (OTHER, SOURCE), cache=cache, controller=weighted, record=True)
    assert other.inversion_recalled
    assert distance(other.latents[0], first.latents[0]) <= 1e-10
    assert not edited(method, image=images(2)[1], cache=cache).inversion_recalled


def test_only_missing_images_of_a_batch_are_inverted(tmp_path: Path) -> None:
    cache, model, method = Cache(tmp_path), tiny_model(), DDIMInversion()
    pictures, prompts = images(3), [SOURCE, TARGET, OTHER]
    sources = read_sources(model, pictures, prompts)
    alone = invert_or_recall(method, model, sources.part([1]), 3, cache=cache)
    ticks: list[int] = []
    sizes: list[int] = []
    handle = model.unet.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    made = invert_or_recall(method, model, sources, 3, tick=lambda: ticks.append(1), cache=cache)
    handle.remove()
    assert [one.recalled for one in made] == [False, True, False]
    assert (sizes, len(ticks)) == ([2, 2, 2], 3)
    assert torch.equal(made[1].replay.start[0], alone[0].replay.start[0])
    straight = method.invert(model, read_sources(model, pictures, prompts), 3)
    for one, expected in zip(made, straight, strict=True):
        assert distance(one.replay.start[0], expected.start[0]) <= 1e-10
    ticks.clear()
    made = invert_or_recall(method, model, sources, 3, tick=lambda: ticks.append(1), cache=cache)
    assert all(one.recalled for one in made)
    assert len(ticks) == 3


def test_methods_without_passes_are_not_kept(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    edited(NoisingInversion(0.5), cache=cache)
    assert cache.entries() == []


def test_a_damaged_entry_is_said_and_computed_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = Cache(tmp_path)
    first = edited(DDIMInversion(), cache=cache)
    (entry,) = cache.entries()
    content = entry.path.read_bytes()
    entry.path.write_bytes(content[:-10])
    with caplog.at_level(logging.WARNING):
        again = edited(DDIMInversion(), cache=cache)
    assert "damaged" in caplog.text
    assert not again.inversion_recalled
    assert torch.equal(again.latents, first.latents)
    assert entry.path.read_bytes() == content
    # An entry that is whole but of another making.
    cache.write(entry.key, pack(Odd(())), {})
    caplog.clear()
    assert not edited(DDIMInversion(), cache=cache).inversion_recalled
    assert "not a replay of DDIMInversion" in caplog.text
    assert edited(DDIMInversion(), cache=cache).inversion_recalled


def test_a_run_goes_on_where_nothing_can_be_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    cache = Cache(tmp_path / "file")
    requests = [
        p2p.EditRequest(str(place), SOURCE, (p2p.Target(TARGET),), image=image, inversion=DDIMInversion())
        for place, image in enumerate(images(3))
    ]
    results = run_edits(tiny_model(), requests, steps=2, cache=cache)
    assert [result.error for result in results] == [None] * 3
    assert caplog.text.count("the run goes on") == 1


def test_entries_tell_what_they_are(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    edited(EditFriendlyInversion(0.0), cache=cache)
    (entry,) = cache.entries()
    about, _ = read_entry(entry.path)
    assert about == {
        "method": "EditFriendlyInversion", "model": "tiny", "steps": 4, "prompt": SOURCE, "unet_rows": 4,
    }  # fmt: skip


def test_the_code_of_a_method_from_elsewhere_is_part_of_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A method in a folder of one's own (`run.trust=true`) is not answered by what it did before a change."""
    text = (
        "from dataclasses import dataclass\n"
        "from p2p_bench.inversion import NoisingInversion\n"
        "@dataclass(frozen=True)\n"
        "class Mine(NoisingInversion):\n"
        "    pass\n"
    )
    (tmp_path / "my_method.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    method = importlib.import_module("my_method").Mine()
    sources = read_sources(tiny_model(), images(1), [SOURCE], [0])

    def key() -> str:
        return replay_key(method, tiny_model(), sources, 0, 2)

    before = key()
    assert key() == before
    (tmp_path / "my_method.py").write_text(text + "# changed\n")
    assert key() != before
