"""Controllers: what an edit does to the attention of its target, as data.

`Controller` objects are settings; `Controller.bind` makes them a pure function of (step, site) for one pair.
README.md beside this file gives every published edit in the notation of the algebra.
"""

from p2p_bench.controllers.base import BoundController, Controller, EditContext
from p2p_bench.controllers.bound import timetable_image
from p2p_bench.controllers.by_edit import ByEdit
from p2p_bench.controllers.compose import Compose
from p2p_bench.controllers.image_qk import ImageQK
from p2p_bench.controllers.inject_words import InjectWords
from p2p_bench.controllers.local_blend import LocalBlend
from p2p_bench.controllers.masactrl import MasaCtrl
from p2p_bench.controllers.none import NoControl
from p2p_bench.controllers.normalised import Normalised
from p2p_bench.controllers.p2plus import P2Plus
from p2p_bench.controllers.pix2pix_zero import Pix2PixZero
from p2p_bench.controllers.plug_and_play import PlugAndPlay
from p2p_bench.controllers.presets import Released, notebook, paper, pie
from p2p_bench.controllers.refine import Refine
from p2p_bench.controllers.replace import Replace
from p2p_bench.controllers.reweight import Reweight
from p2p_bench.controllers.self_attention import SelfAttention
from p2p_bench.tau import Ramp, Tau, parse_interval, parse_tau, tau_text

__all__ = [
    "BoundController",
    "ByEdit",
    "Compose",
    "Controller",
    "EditContext",
    "ImageQK",
    "InjectWords",
    "LocalBlend",
    "MasaCtrl",
    "NoControl",
    "Normalised",
    "P2Plus",
    "Pix2PixZero",
    "PlugAndPlay",
    "Ramp",
    "Refine",
    "Released",
    "Replace",
    "Reweight",
    "SelfAttention",
    "Tau",
    "notebook",
    "paper",
    "parse_interval",
    "parse_tau",
    "pie",
    "tau_text",
    "timetable_image",
]
