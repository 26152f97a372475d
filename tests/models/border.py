"""What a family of models has to pass: every controller, every inversion and the tree, on a small model."""

import pytest
import torch
from torch import Tensor

import p2p_bench as p2p
from p2p_bench.app.build import build, chosen_options, without_hydra
from p2p_bench.app.compose import compose, group_options
from p2p_bench.bench.task import Task
from p2p_bench.controllers import EditContext
from p2p_bench.editing import EditRequest, Record, Target, run_edits
from p2p_bench.inversion.base import read_sources, unserved
from p2p_bench.inversion.recall import pack, unpack
from p2p_bench.models import DiffusionModel
from tests.examples import SOURCE, TARGET, example
from tests.models.tiny_clip import encoder

LONGER = "a small red circle on grass in fog"
STEPS = 4
EXACT = ("direct", "edict", "edit_friendly")
"""Inversions that rebuild the source but for rounding."""
FEWER = {"renoise": ("inversion.iterations=8",)}
"""Settings with which a method that goes on until it is exact ends sooner."""


class Border:
    """Derive from it in `tests/models/test_mine.py`, beside a fixture `model` of the scope of the module.

    The model is a small one with random but fixed weights, in double precision, so that equal is equal. Its
    attention has to be sharp enough for edits to show, see `tests/models/tiny.py`.
    """

    @pytest.fixture
    def image(self, model: DiffusionModel) -> Tensor:
        return torch.rand(3, *model.spec.image_size, generator=torch.Generator().manual_seed(2))

    @pytest.mark.parametrize("option", group_options("controller"))
    def test_every_controller_edits(self, model: DiffusionModel, option: str) -> None:
        made = controller(option)
        prompts = (model.tokenize(text) for text in (SOURCE, TARGET))
        bound = made.bind(EditContext(*prompts, STEPS, model.spec.self_fraction))
        if any(map(bound.features, range(STEPS))) and "features" not in model.spec.capabilities:
            with pytest.raises(p2p.P2PError, match="injects features"):
                p2p.edit(model, SOURCE, TARGET, made, steps=STEPS)
            return
        if any(map(bound.map_guidance, range(STEPS))) and "maps" not in model.spec.capabilities:
            with pytest.raises(p2p.P2PError, match="needs maps of cross-attention"):
                p2p.edit(model, SOURCE, TARGET, made, steps=STEPS)
            return
        plain = self.plain(model)
        edited = p2p.edit(model, SOURCE, TARGET, made, seed=3, steps=STEPS)
        assert distance(edited.latents[0], plain.latents[0]) <= 1e-10
        change = distance(edited.latents[1], plain.latents[1])
        assert change <= 1e-10 if option == "none" else change > 1e-3

    @pytest.mark.parametrize("option", group_options("inversion"))
    def test_every_inversion_that_it_can_serve(
        self, model: DiffusionModel, image: Tensor, option: str
    ) -> None:
        inversion = task(
            f"inversion={option}", *FEWER.get(option, ()), *encoder(option, model.spec)
        ).inversion
        edits = [p2p.NoControl(), p2p.Replace(0.8, 0.5)]

        def edited() -> p2p.EditResult:
            return p2p.edit(model, SOURCE, [TARGET] * 2, edits, image=image, inversion=inversion, steps=STEPS)

        if unserved(inversion, model.spec) is not None:
            with pytest.raises(p2p.P2PError, match=f"{type(inversion).__name__} needs"):
                edited()
            return
        result = edited()
        assert bool(result.latents.isfinite().all())
        assert distance(result.latents[1], result.latents[0]) > 1e-3
        assert distance(result.latents[2], result.latents[1]) > 1e-3
        if option in EXACT:
            assert distance(result.latents[0], model.encode_images(image[None])[0]) <= 1e-8
        # What is kept for the next run is what was made.
        method = inversion.for_guidance(5.0).for_model(model.spec)
        (replay,) = method.invert(model, read_sources(model, image[None], [SOURCE]), STEPS)
        assert replay.unet_rows == 0 or pack(unpack(pack(replay), method, model.device)) == pack(replay)

    @classmethod
    def plain(cls, model: DiffusionModel) -> p2p.EditResult:
        """The edit without control, sampled once a model."""
        if cls._plain is None or cls._plain[0] is not model:
            cls._plain = model, p2p.edit(model, SOURCE, TARGET, seed=3, steps=STEPS)
        return cls._plain[1]

    _plain: tuple[DiffusionModel, p2p.EditResult] | None = None

    def test_a_source_alone_is_that_of_an_edit(self, model: DiffusionModel) -> None:
        made = p2p.generate(model, [LONGER, SOURCE], count=2, seed=3, steps=STEPS)
        edited = p2p.edit(model, SOURCE, TARGET, p2p.Replace(0.8, 0.4), seed=4, steps=STEPS)
        assert distance(made.latents[3], edited.latents[0]) <= 1e-10
        assert distance(made.images[3], edited.images[0]) <= 1e-5
        assert made.unet_rows == 4 * edited.source_rows

    def test_the_tree_equals_solo_edits(self, model: DiffusionModel) -> None:
        edits = [
            p2p.Replace(0.5, 0.25), p2p.Replace(1.0, 0.25), p2p.Reweight({"blue": 3.0}), p2p.MasaCtrl(),
            p2p.LocalBlend(p2p.Replace(0.8), words=("circle",), target_words=("circle",)), p2p.NoControl(),
        ]  # fmt: skip
        targets = (*(Target(TARGET, one) for one in edits), Target(LONGER, p2p.Refine(0.8)))
        (together,) = run_edits(model, [EditRequest("x", SOURCE, targets)], steps=STEPS, record=Record())
        assert sum(together.target_rows_spent) < sum(together.target_rows)
        for place, target in enumerate(targets):
            request = EditRequest("x", SOURCE, (target,))
            (alone,) = run_edits(model, [request], steps=STEPS, record=Record())
            assert distance(together.latents[[0, 1 + place]], alone.latents) <= 1e-10
            assert distance(together.heatmap("circle", 1 + place), alone.heatmap("circle", 1)) <= 1e-5


def task(*overrides: str) -> Task:
    config = compose([*overrides, "dataset.limit=1", "logger=none"], keep_hydra=True)
    return build(without_hydra(config), chosen_options(config.hydra)).task


def controller(option: str) -> p2p.Controller:
    return task(f"controller={option}", *example("controller", option)).variants[0].controller


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())
