import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch

import p2p_bench as p2p
from p2p_bench.errors import ConfigError, ErrorList, PromptError
from p2p_bench.inversion import DDIMInversion, Inversion, NoInversion, NoisingInversion
from p2p_bench.inversion.base import no_tick, tick_all, unserved
from p2p_bench.models.spec import Capability
from p2p_bench.sampling import Replay
from p2p_bench.tau import part_of
from tests.models.tiny import tiny_model


@dataclass(frozen=True)
class Demanding(Inversion):
    """A method that asks for what a model without a ladder does not have."""

    needs: ClassVar[frozenset[Capability]] = frozenset({"ladder", "gradient", "cross"})

    def invert(self, *arguments: Any, **options: Any) -> Sequence[Replay]:
        raise AssertionError("refused before this")


def test_a_method_on_a_model_it_cannot_serve_says_why() -> None:
    model = tiny_model()
    assert unserved(Demanding(), model.spec) is None
    model = dataclasses.replace(
        model, spec=dataclasses.replace(model.spec, capabilities=frozenset({"cross", "unconditional"}))
    )
    said = (
        "inversion: Demanding needs differentiable passes and noise levels that a deterministic step can be "
        "taken along and back, which model 'tiny' of family 'sd' does not have; take another inversion, "
        "or another model"
    )
    assert str(unserved(Demanding(), model.spec)) == said
    with pytest.raises(ConfigError, match="Demanding needs differentiable passes"):
        p2p.edit(model, "a cat", "a dog", image=torch.zeros(3, 16, 16), inversion=Demanding(), steps=1)
    assert unserved(DDIMInversion(), model.spec) is not None
    assert unserved(NoInversion(), model.spec) is None


def test_a_prompt_is_needed() -> None:
    for source, error in ((" ", PromptError), ("", PromptError)):
        with pytest.raises(error, match="empty prompt"):
            p2p.edit(tiny_model(), source, "a dog", image=torch.zeros(3, 16, 16), steps=1)
    skipping = NoisingInversion(0.0)
    with pytest.raises(ErrorList, match="takes none of the 1 steps"):
        p2p.edit(tiny_model(), " ", "a dog", image=torch.zeros(3, 16, 16), inversion=skipping, steps=1)


@pytest.mark.parametrize(
    ("fraction", "steps", "part"), [(0.0, 5, 0), (1.0, 5, 5), (0.29, 100, 29), (0.24, 50, 12), (0.5, 25, 12)]
)
def test_parts_of_a_run(fraction: float, steps: int, part: int) -> None:
    assert part_of(fraction, steps) == part


def test_skipped_steps_are_reported() -> None:
    ticks: list[int] = []
    tick_all(lambda: ticks.append(1), 3)
    tick_all(no_tick, 3)
    assert len(ticks) == 3


def test_the_default_draws_nothing() -> None:
    assert not DDIMInversion().draws_noise
    assert NoInversion().draws_noise
