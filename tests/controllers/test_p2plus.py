"""Both passes are edited where it is asked for, and nowhere else."""

import pytest

import p2p_bench as p2p
from p2p_bench.attention.sites import Site
from p2p_bench.controllers import EditContext
from p2p_bench.controllers.bound import BoundP2P
from tests.models.tiny import tiny_model

STEPS = 10
SMALL = Site("any", "self", 2, "down", 1, 1)
CROSS = Site("any", "cross", 2, "down", 1, 1)


def context() -> EditContext:
    read = tiny_model().tokenize
    return EditContext(read("a red circle on grass"), read("a blue circle on grass"), STEPS, 0.5)


def bound(controller: p2p.Controller) -> BoundP2P:
    made = controller.bind(context())
    assert isinstance(made, BoundP2P)
    return made


def test_the_pass_without_the_prompt_is_edited_in_its_own_steps() -> None:
    plain, both = bound(p2p.Refine(0.8, 0.6)), bound(p2p.P2Plus(p2p.Refine(0.8, 0.6), 0.3))
    for step in range(STEPS):
        on = step < 3
        assert both.unprompted(step) == ("own" if on else "plain")
        assert both.unprompted_edit(step, SMALL) == (plain.site_edit(step, SMALL) if on else None)
        assert both.unprompted_edit(step, CROSS) is None
        assert both.site_edit(step, SMALL) == plain.site_edit(step, SMALL)
        assert (both.signature(step) == plain.signature(step)) == (not on)
    changes = both.changes()
    assert changes is not None
    assert 3 in changes
    assert "pass without the prompt likewise at" in str(both)
    assert bound(p2p.P2Plus(p2p.Refine(0.8, 0.6), 0.0)).signature(0) == plain.signature(0)


def test_around_weights_and_blends() -> None:
    inner = p2p.Reweight({"blue": 2.0}, 0.8, 0.0, p2p.Refine(0.8, 0.6))
    assert bound(p2p.P2Plus(inner, 0.3)).unprompted(2) == "own"
    outer = bound(p2p.Reweight({"blue": 2.0}, 0.8, 0.0, p2p.P2Plus(p2p.Refine(0.8, 0.6), 0.3)))
    assert [outer.unprompted(step) for step in (2, 3)] == ["own", "plain"]
    blended = p2p.P2Plus(p2p.LocalBlend(p2p.Refine(0.8, 0.6), words=("circle",)), 0.3).bind(context())
    assert blended.blend is not None
    assert [blended.unprompted(step) for step in (2, 3)] == ["own", "plain"]
    pair = p2p.P2Plus(p2p.Refine(), 0.1).for_pair({"blue": 2.0})
    assert pair.unprompted == 0.1


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(p2p.ConfigError, match="leaves self-attention alone in some of steps 0 to 6"):
        bound(p2p.P2Plus(p2p.Refine(0.8, 0.6), 0.7))
    with pytest.raises(p2p.ConfigError, match="expected an edit of the pass with the prompt"):
        bound(p2p.P2Plus(p2p.PlugAndPlay(), 0.3))
    with pytest.raises(p2p.ConfigError, match="p2plus unprompted"):
        p2p.P2Plus(p2p.Refine(), 1.5)
    twice = p2p.Compose([p2p.P2Plus(p2p.Refine(0.8, 0.6), 0.3), p2p.SelfAttention(0.5)])
    with pytest.raises(p2p.ConfigError, match="in different ways"):
        bound(twice)
