"""Controllers: what an edit does to the attention of its target, as data.

`Controller` objects are settings; `Controller.bind` makes them a pure function of (step, site) for one pair.
"""

from p2p_bench.controllers.base import BoundController, Controller, EditContext
from p2p_bench.controllers.by_edit import ByEdit
from p2p_bench.controllers.local_blend import LocalBlend
from p2p_bench.controllers.none import NoControl
from p2p_bench.controllers.refine import Refine
from p2p_bench.controllers.replace import Replace
from p2p_bench.controllers.reweight import Reweight
from p2p_bench.controllers.tau import Tau, parse_tau

__all__ = [
    "BoundController",
    "ByEdit",
    "Controller",
    "EditContext",
    "LocalBlend",
    "NoControl",
    "Refine",
    "Replace",
    "Reweight",
    "Tau",
    "parse_tau",
]
