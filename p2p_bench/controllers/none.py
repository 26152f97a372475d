"""No control: plain sampling from the same noise."""

from dataclasses import dataclass

from p2p_bench.controllers.base import Controller, EditContext
from p2p_bench.controllers.bound import BoundP2P, bind_p2p


@dataclass(frozen=True)
class NoControl(Controller):
    """The target is sampled from the source's noise and otherwise left alone: (L, R) = (0, I)."""

    def bind(self, context: EditContext) -> BoundP2P:
        """See `Controller`."""
        return bind_p2p("none", context)
