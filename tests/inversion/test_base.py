from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch

import p2p_bench as p2p
from p2p_bench.errors import ConfigError, ErrorList, PromptError
from p2p_bench.inversion import DDIMInversion, Inversion, NoInversion
from p2p_bench.inversion.base import part_of, tick_all, unserved
from p2p_bench.sampling import Replay
from tests.models.tiny import tiny_model


@dataclass(frozen=True)
class FlowOnly(Inversion):
    """A method that the tiny model cannot be served by."""

    families: ClassVar[tuple[str, ...] | None] = ("flux", "sd3")
    needs: ClassVar[str] = "a velocity that a straight path can follow"

    def invert(self, *arguments: Any, **options: Any) -> Sequence[Replay]:
        raise AssertionError("refused before this")


def test_a_method_on_a_model_it_cannot_serve_says_why_and_which_it_can() -> None:
    model = tiny_model()
    said = (
        "inversion: FlowOnly needs a velocity that a straight path can follow, which model 'tiny' of family "
        "'sd' does not have; it serves models of family flux, sd3"
    )
    assert str(unserved(FlowOnly(), model.spec)) == said
    with pytest.raises(ConfigError, match="FlowOnly needs a velocity"):
        p2p.edit(model, "a cat", "a dog", image=torch.zeros(3, 16, 16), inversion=FlowOnly(), steps=1)
    assert unserved(DDIMInversion(), model.spec) is None
    assert unserved(NoInversion(), model.spec) is None


def test_a_prompt_is_needed() -> None:
    for source, error in ((" ", PromptError), ("", PromptError)):
        with pytest.raises(error, match="empty prompt"):
            p2p.edit(tiny_model(), source, "a dog", image=torch.zeros(3, 16, 16), steps=1)
    with pytest.raises(ErrorList, match="FlowOnly"):
        p2p.edit(tiny_model(), " ", "a dog", image=torch.zeros(3, 16, 16), inversion=FlowOnly(), steps=1)


@pytest.mark.parametrize(
    ("fraction", "steps", "part"), [(0.0, 5, 0), (1.0, 5, 5), (0.29, 100, 29), (0.24, 50, 12), (0.5, 25, 12)]
)
def test_parts_of_a_run(fraction: float, steps: int, part: int) -> None:
    assert part_of(fraction, steps) == part


def test_skipped_steps_are_reported() -> None:
    ticks: list[int] = []
    tick_all(lambda: ticks.append(1), 3)
    tick_all(None, 3)
    assert len(ticks) == 3


def test_the_default_draws_nothing() -> None:
    assert not DDIMInversion().draws_noise
    assert NoInversion().draws_noise
