from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import p2p_bench as p2p
from p2p_bench.errors import ConfigError
from p2p_bench.inversion import EDICTInversion, EditFriendlyInversion, NoisingInversion
from p2p_bench.models.schedule import schedule_from_config
from p2p_bench.models.timesteps import SPACINGS, TimestepLayout, check_spacing
from p2p_bench.sampling import DDIMSampler
from tests.models.tiny import tiny_checkpoint, tiny_model


@pytest.mark.parametrize(
    ("steps", "first"),
    [(50, 981), (25, 961), (20, 951), (30, 958), (28, 946), (100, 991), (999, 999), (4, 751)],
)
def test_published_counts_stay_as_they_were(steps: int, first: int) -> None:
    timesteps = TimestepLayout().timesteps(steps)
    assert timesteps[0] == first
    assert timesteps[-1] == 1
    assert {a - b for a, b in pairwise(timesteps)} == {1000 // steps}


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        (501, "begin at timestep 501.* take 499 or 500 steps.*sampler.spacing=trailing"),
        (350, "begin at timestep 699.* take 332 or 333 steps"),
        (60, "begin at timestep 945.* take .*5[89]"),
        (1000, "take 998 or 999 steps"),
        (1001, "expected 1 to 1000"),
        (10**9, "expected 1 to 1000"),
        (10**20, "expected 1 to 1000"),
    ],
)
def test_counts_that_miss_the_noise_are_refused_at_once(steps: int, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        TimestepLayout().check(steps)
    with pytest.raises(ConfigError, match=said):
        p2p.edit(tiny_model(), "a red circle", "a blue circle", steps=steps)
    with pytest.raises(ConfigError, match=said):
        DDIMSampler(steps).steps_on(tiny_checkpoint().spec())


@given(steps=st.integers(1, 1000), spacing=st.sampled_from(SPACINGS))
@settings(max_examples=150, deadline=None)
def test_every_count_is_a_schedule_or_refused(steps: int, spacing: str) -> None:
    layout = TimestepLayout(1000, spacing)  # type: ignore[arg-type]  # one of SPACINGS
    try:
        timesteps = layout.timesteps(steps)
    except ConfigError as error:
        assert spacing == "leading"
        good = [int(word) for word in str(error).split("take ")[1].split(" steps")[0].split(" or ")]
        assert all(layout.timesteps(count) for count in good)
        return
    assert len(timesteps) == steps
    assert list(timesteps) == sorted(set(timesteps), reverse=True)
    assert timesteps[-1] >= 0
    assert timesteps[0] <= 999
    reached = timesteps[0] + 1000 / steps if spacing == "leading" else timesteps[0] + 1
    assert reached >= 980 or steps == 1


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("steps", [1, 7, 25, 30])
def test_a_step_ends_where_the_next_begins(spacing: str, steps: int) -> None:
    schedule = schedule_from_config({"timestep_spacing": spacing})
    ladder = schedule.ladder(steps)
    assert [level.timestep for level in ladder] == [*schedule.timesteps(steps), -1]
    for level in ladder:
        assert level.alpha**2 == pytest.approx(schedule.alpha_bar(int(level.timestep)), abs=1e-12)
        assert level.alpha**2 + level.sigma**2 == pytest.approx(1, abs=1e-12)
    assert ladder[-1].alpha == schedule.final_alpha_cumprod**0.5


def test_another_spacing_is_an_explicit_choice() -> None:
    model, prompts = tiny_model(), ("a red circle", "a blue circle")
    published = p2p.edit(model, *prompts, steps=4)
    again, trailing = (p2p.edit(model, *prompts, steps=4, spacing=one) for one in ("leading", "trailing"))
    assert again.images.equal(published.images)
    assert not trailing.images.equal(published.images)
    assert model.laid_out("ddim", "trailing").schedule.timesteps(4) == (999, 749, 499, 249)
    assert model.schedule.timesteps(4)[0] == 751
    with pytest.raises(ConfigError, match=r"sampler\.spacing.*Did you mean 'trailing'"):
        check_spacing("trailin")


@pytest.mark.parametrize(
    ("method", "left"),
    [
        (NoisingInversion(0.0), False),
        (NoisingInversion(0.2), False),
        (NoisingInversion(0.25), True),
        (EditFriendlyInversion(skip=1.0), False),
        (EditFriendlyInversion(skip=0.9), True),
        (EDICTInversion(strength=0.01), True),
    ],
)
def test_an_edit_of_no_step_is_refused(method: p2p.Inversion, left: bool) -> None:
    image = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))

    def edit() -> p2p.EditResult:
        return p2p.edit(
            tiny_model(),
            "a red circle",
            "a blue circle",
            image=image,
            inversion=method,
            steps=4,
            guidance=1.0,
        )

    if left:
        assert edit().error is None
    else:
        with pytest.raises(ConfigError, match="takes none of the 4 steps"):
            edit()
