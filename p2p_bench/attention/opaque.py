"""Planned attention as one operation that a compiler does not look into.

What a plan does at a site changes from step to step: other terms, other rows, maps that are recorded. A
compiler that saw it would compile anew for each. It sees an operation of tensors: what goes into the site,
and the number of the pass, by which the operation finds the plan when it is run.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from torch import Tensor

from p2p_bench.attention.plan import StepPlan
from p2p_bench.attention.processor import folded_attention
from p2p_bench.attention.sites import Site, network_sites
from p2p_bench.shared import SharedChange


@dataclass(frozen=True, eq=False)
class _Pass:
    """A pass that is going on: the network, and what its sites do."""

    network: Any
    plan: StepPlan


_NUMBERS = count()
_PASSES: dict[int, _Pass] = {}
"""The passes that are going on, in all threads, by number."""


@contextmanager
def numbered(network: Any, plan: StepPlan) -> Iterator[Tensor]:
    """The number of a pass, which the processors of `opaque_attention` take in place of its plan.

    Args:
        network: The network that is asked.
        plan: What its sites do.
    """
    number = next(_NUMBERS)
    _PASSES[number] = _Pass(network, plan)
    try:
        yield torch.tensor(number)
    finally:
        del _PASSES[number]


@torch.library.custom_op("p2p_bench::planned_attention", mutates_args=())
def planned_attention(
    number: Tensor,
    site: str,
    states: Tensor,
    context: Tensor | None,
    mask: Tensor | None,
    more: Sequence[Tensor],
    text_length: int,
    both: bool,
) -> list[Tensor]:
    """What the processor of a site answers under the plan of a pass.

    Args:
        number: That of the pass, an integer on the CPU.
        site: Name of the site.
        states: The processor's `hidden_states`.
        context: Its `encoder_hidden_states`.
        mask: Its `attention_mask`.
        more: Cosines and sines of rotary positions, or nothing.
        text_length: Number of text columns among the states, where they hold both.
        both: Whether the answer to the context is wanted too.

    Returns:
        The answer to the states, and that to the context, like what they answer to.
    """
    found = _PASSES[int(number)]
    attn = found.network.get_submodule(site)
    rotary = {"image_rotary_emb": tuple(more), "text_length": text_length} if more else {}
    answer = attn.processor.inner(attn, states, context, mask, plan=found.plan, **rotary)
    answers = answer if isinstance(answer, tuple) else (answer,)
    return [one.contiguous() for one in answers[: 1 + both]]


@planned_attention.register_fake
def _(
    number: Tensor,
    site: str,
    states: Tensor,
    context: Tensor | None,
    mask: Tensor | None,
    more: Sequence[Tensor],
    text_length: int,
    both: bool,
) -> list[Tensor]:
    answered = [states, context] if both else [states]
    return [
        torch.empty_like(one, memory_format=torch.contiguous_format) for one in answered if one is not None
    ]


class OpaqueProcessor:
    """A processor that is opaque where it is given the number of a pass, and does what it did elsewhere.

    Args:
        site: The site it is installed at.
        inner: The processor.
    """

    def __init__(self, site: Site, inner: Callable[..., Any]) -> None:
        self.name = site.name
        self.joint = site.joint and site.place == "block"
        self.inner = inner

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: Any = None,
        plan: StepPlan | Tensor | None = None,
        text_length: int = 0,
    ) -> Any:
        """Attend. Arguments as in diffusers, the last two as in the processors of `folded_attention`."""
        if not isinstance(plan, Tensor):
            told = {"image_rotary_emb": image_rotary_emb, "text_length": text_length}
            rotary = {} if image_rotary_emb is None else told
            return self.inner(attn, hidden_states, encoder_hidden_states, attention_mask, plan=plan, **rotary)
        answers_both = self.joint and encoder_hidden_states is not None
        both = answers_both and not attn.context_pre_only
        more = [] if image_rotary_emb is None else list(image_rotary_emb)
        answer = planned_attention(
            plan, self.name, hidden_states, encoder_hidden_states, attention_mask, more, text_length, both
        )
        return (answer[0], answer[1] if both else None) if answers_both else answer[0]


_OPAQUE = SharedChange()


@contextmanager
def opaque_attention(network: Any) -> Iterator[None]:
    """Within it every site has an opaque processor around that of `folded_attention`.

    Several threads may be within it with one network, and within `folded_attention` before, not after.

    Args:
        network: See `folded_attention`.
    """
    with folded_attention(network):

        def change() -> Callable[[], None]:
            before = dict(network.attn_processors)
            names = {f"{site.name}.processor": site for site in network_sites(network)}
            opaque = {name: OpaqueProcessor(site, before[name]) for name, site in names.items()}
            network.set_attn_processor({**before, **opaque})
            return lambda: network.set_attn_processor(before)

        with _OPAQUE.within(network, change):
            yield
