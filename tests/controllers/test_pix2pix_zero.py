"""pix2pix-zero as PIE-Bench's table has it equals the released script, written out; and what it costs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import pytest
import torch
from torch import Tensor

import p2p_bench as p2p
from p2p_bench.attention.maps import KeptMaps, MapDistances
from p2p_bench.attention.plan import StepPlan
from p2p_bench.controllers import EditContext
from p2p_bench.editing.map_guidance import Half, descended
from tests.controllers.released_zero import SAID, ReleasedZero
from tests.models.small_sd3 import small_sd3_model
from tests.models.tiny import tiny_model

SOURCE, TARGET = "a red circle on grass", "a blue circle on grass"
STEPS = 5
SMALL = 1e-4
ASKED, SHOWN = Half(1, False), Half(0, False)
EXACT = 1e-8
SEEN = 1e3 * EXACT


@dataclass(frozen=True, eq=False)
class Rig:
    """A model, how many steps it takes, and an amount.

    The random maps of a small network are sharp: it is thrown about by the published amount, which a trained
    one takes.
    """

    model: Any
    steps: int
    amount: float

    @cached_property
    def loop(self) -> ReleasedZero:
        return ReleasedZero(self.model, self.steps)

    @cached_property
    def image(self) -> Tensor:
        size = self.model.spec.image_size
        return torch.rand(3, *size, generator=torch.Generator().manual_seed(2))

    def released(self, path: Sequence[Tensor] | None = None, **said: Any) -> Tensor:
        said = {"amount": self.amount, **said}
        return self.loop.pix2pix_zero(path or self.path, SOURCE, TARGET, **said)

    @cached_property
    def path(self) -> list[Tensor]:
        return self.loop.zero_inverted(self.model.encode_images(self.image[None]), SOURCE)

    def edited(
        self,
        inversion: p2p.Inversion | None = None,
        controller: Any = None,
        targets: Any = TARGET,
        **more: Any,
    ) -> p2p.EditResult:
        result = p2p.edit(
            self.model, SOURCE, targets, controller or p2p.Pix2PixZero(self.amount), image=self.image,
            inversion=inversion or p2p.Pix2PixZeroInversion(**SAID), steps=self.steps, record=False,
            **{"guidance": 7.5, **more},
        )  # fmt: skip
        assert result.error is None, result.error
        return result


@cache
def tiny() -> Rig:
    return Rig(tiny_model(), STEPS, SMALL)


@cache
def velocity() -> Rig:
    return Rig(tiny_model(prediction_type="v_prediction"), 2, SMALL)


@cache
def embedded() -> Rig:
    return Rig(p2p.load_model("world", dtype=torch.float64), 2, 0.1)


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("rig", [tiny, velocity, embedded])
def test_it_equals_the_released_script(rig: Callable[[], Rig], direct: bool) -> None:
    on = rig()
    result = on.edited(p2p.Pix2PixZeroInversion(direct=direct, **SAID))
    assert distance(result.latents, on.released(direct=direct)) <= EXACT
    wrong = on.released(direct=direct, maps=1.01)
    assert distance(result.latents[1], wrong[1]) > SEEN
    steps = on.steps
    # The target descends in both passes, to maps that one pass of the source shows, and is sampled in both.
    rows = result.inversion_rows, result.source_rows, *result.target_rows
    assert rows == (steps, steps, 5 * steps)
    assert result.target_rows_backward == (2 * steps,)
    assert result.inversion_rows_backward == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"amount": 1.01 * SMALL},
        {"guidance": 7.4},
        {"negative": ""},
        {"sites": slice(1, None)},
        {"targets": False},
    ],
    ids=str,
)
def test_each_part_of_the_edit_counts(wrong: Mapping[str, Any]) -> None:
    on = tiny()
    found = on.edited(p2p.Pix2PixZeroInversion(direct=True, **SAID)).latents[1]
    assert distance(found, on.released(direct=True, **wrong)[1]) > SEEN


@pytest.mark.parametrize(
    "inversion", [p2p.DDIMInversion(), p2p.DirectInversion(targets=True)], ids=["ddim", "direct"]
)
def test_the_pass_without_the_prompt_follows_that_of_the_source(inversion: Any) -> None:
    on, direct = tiny(), isinstance(inversion, p2p.DirectInversion)
    with torch.no_grad():
        path = on.loop.inverted(on.model.encode_images(on.image[None]), SOURCE)
    expected = on.released(path, direct=direct, negative="")
    result = on.edited(inversion)
    assert distance(result.latents, expected) <= EXACT
    # A source with passes that are told different things shows the maps of both.
    assert (result.source_rows, result.target_rows) == (2 * STEPS, (6 * STEPS,))


def test_an_edit_into_itself_is_the_source_and_direct_inversion_rebuilds_it() -> None:
    on = tiny()
    for inversion in (p2p.Pix2PixZeroInversion(direct=True), p2p.Pix2PixZeroInversion(direct=True, **SAID)):
        result = on.edited(inversion, targets=[SOURCE, TARGET])
        latents = on.model.encode_images(on.image[None])[0]
        assert distance(result.latents[0], latents) <= EXACT
        assert distance(result.latents[1], latents) <= EXACT
        assert distance(result.latents[2], latents) > 1e-2
    plain = on.edited(p2p.Pix2PixZeroInversion(), targets=[SOURCE])
    assert distance(plain.latents[0], plain.latents[1]) <= EXACT


def test_guidance_1_descends_in_the_one_pass_there_is() -> None:
    on = tiny()
    result, plain = on.edited(guidance=1.0), on.edited(guidance=1.0, controller=p2p.SelfAttention(0.0))
    assert result.target_rows == (3 * STEPS,)
    assert result.target_rows_backward == (STEPS,)
    assert distance(result.latents[1], plain.latents[1]) > SEEN


def test_the_descent_lowers_the_distance_of_the_maps() -> None:
    """Of the target's pass with the prompt, which is at other latents than the source's."""
    on = tiny()
    model, level = on.model, on.model.ladder(STEPS)[0]
    text = {half: model.encode([model.tokenize(one)]) for half, one in ((ASKED, TARGET), (SHOWN, SOURCE))}
    x = torch.randn(2, 4, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    kept = KeptMaps()
    with torch.no_grad(), model.controlled():
        model.predict(x[:1], level, text[SHOWN], StepPlan(1, {}, maps=kept))
        far = []
        for amount in (0.0, SMALL, 2 * SMALL):
            moved = descended(model, x, level, {ASKED: SHOWN}, text, {1: amount}).latents
            assert distance(moved[0], x[0]) == 0
            seen = MapDistances(kept.maps, torch.tensor([0]))
            model.predict(moved[1:], level, text[ASKED], StepPlan(1, {}, maps=seen))
            far.append(float(seen.total()))
    assert far[0] > far[1] > far[2] > 0


def test_neighbours_and_parts_change_nothing() -> None:
    on, inversion = tiny(), p2p.Pix2PixZeroInversion(direct=True)
    targets = [TARGET, TARGET, "a red star on grass", TARGET]
    amounts = p2p.Pix2PixZero(SMALL), p2p.Pix2PixZero(2 * SMALL)
    controllers = [amounts[0], p2p.Refine(0.5), amounts[1], p2p.PlugAndPlay()]
    together = on.edited(inversion, controllers, targets)
    assert together.target_rows_backward == (2 * STEPS, 0, 2 * STEPS, 0)
    # One pass of the source shows its maps to both that descend.
    assert together.target_rows == (5 * STEPS, 2 * STEPS, 5 * STEPS, 2 * STEPS)
    assert sum(together.target_rows_spent) == pytest.approx(13 * STEPS)
    assert together.source_rows == STEPS
    asked = tuple(p2p.Target(*one) for one in zip(targets, controllers, strict=True))
    request = p2p.EditRequest("x", SOURCE, asked, image=on.image, inversion=inversion)
    (parts,) = p2p.run_edits(on.model, [request], steps=STEPS, guidance=7.5, max_rows=4)
    assert parts.source_passes > 1
    assert distance(parts.latents, together.latents) <= EXACT
    for place, (target, controller) in enumerate(zip(targets, controllers, strict=True), start=1):
        alone = on.edited(inversion, controller, target)
        assert distance(alone.latents[1], together.latents[place]) <= EXACT


def test_it_works_where_gradients_are_off() -> None:
    on = tiny()
    with torch.inference_mode():
        inside = on.edited()
    assert distance(inside.latents, on.edited().latents) <= EXACT


def test_it_is_said_and_composed() -> None:
    model = tiny_model()
    context = EditContext(model.tokenize(SOURCE), model.tokenize(TARGET), 4, 0.5)
    made = p2p.Compose([p2p.Refine(0.5), p2p.Pix2PixZero(0.2)]).bind(context)
    assert made.map_guidance(3) == 0.2
    assert "toward the source's cross-attention maps, times 0.2" in str(made)
    alone, other = (p2p.Pix2PixZero(amount).bind(context) for amount in (0.1, 0.2))
    assert alone.signature(0) != other.signature(0)
    assert p2p.LocalBlend(p2p.Pix2PixZero(), words="circle").bind(context).map_guidance(0) == 0.1


@pytest.mark.parametrize("controller", [p2p.Pix2PixZero(), p2p.Compose([p2p.Refine(), p2p.Pix2PixZero()])])
def test_models_without_such_maps_refuse_it(controller: p2p.Controller) -> None:
    model = small_sd3_model()
    with pytest.raises(p2p.P2PError, match=r"maps of cross-attention to the text alone, which model .* not"):
        p2p.edit(model, SOURCE, TARGET, controller, steps=2)


def test_a_source_that_is_told_nothing_has_no_maps_of_its_words() -> None:
    on = tiny()
    with pytest.raises(p2p.P2PError, match="takes the source's attention to its words"):
        on.edited(p2p.DDIMInversion(inverted_with="empty"))
