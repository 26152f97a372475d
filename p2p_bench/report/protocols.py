"""How the rows of the published tables were made, and whether a run was made so."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from p2p_bench.report.runs import Row


@dataclass(frozen=True)
class Protocol:
    """How a row of the published table was made, besides what all were.

    Attributes:
        inversion: Settings of its inversion.
        controller: Settings of its controller; None: its schedules say them.
        model: The model.
        tau_cross: Cross-attention schedule as rows have it.
        tau_self: Self-attention schedule likewise.
    """

    inversion: Mapping[str, Any]
    controller: Mapping[str, Any] | None = None
    model: str = "sd14"
    tau_cross: str = "0.4"
    tau_self: str = "0.6"


CLIP = "openai-ViT-L-14"
"""Label of the CLIP network of the published table."""

_SET = "pie_bench"
"""The data set of the published table; PIE-Bench++ has other prompts."""

INVERSIONS: Mapping[str, Mapping[str, Any]] = {
    "ddim": {"guidance": 1.0},
    "direct": {"guidance": 1.0},
    "negative_prompt": {"guidance": 1.0},
    "null_text": {"inner_steps": 10, "learning_rate": None, "tolerance": 1e-5},
}
"""Settings of the inversions of the published table with Prompt-to-Prompt, by option."""

_MASACTRL = Protocol(
    {"guidance": 1.0, "inverted_with": "empty"},
    {"start_step": 4, "layers": 10, "unprompted": True},
    tau_cross="",
    tau_self="",
)
_PNP = Protocol(
    {
        "guidance": 1.0,
        "replayed_with": "empty",
        "negative_prompt": "ugly, blurry, black, low res, unrealistic",
        "pivot": "ddim",
    },
    {"self_attn": 0.5, "features": 0.8, "layers": 0.5},
    model="sd15",
    tau_cross="",
    tau_self="0.5",
)
_ZERO = Protocol(
    {
        "guidance": 1.0,
        "lambda_ac": 20.0,
        "lambda_kl": 20.0,
        "num_reg_steps": 5,
        "num_ac_rolls": 5,
        "as_released": True,
        "shift_seed": 1234,
        "direct": True,
    },
    {"guidance_amount": 0.1},
    tau_cross="",
    tau_self="",
)
_STYLE = Protocol(
    {
        "inner_steps": 100,
        "learning_rate": 0.01,
        "tolerance": 1e-5,
        "attention_weight": 1.0,
        "tau_v": 0.5,
        "encoder": "ViT-B-16-quickgelu",
        "encoder_weights": "openai",
        "network_seed": 1234,
    },
    {"cross": 0.6, "self_attn": 0.6, "edit": "by_length"},
    tau_cross="0.6",
)
PROTOCOLS: Mapping[str, Protocol] = {
    "StyleDiffusion + P2P": _STYLE,
    "DDIM + MasaCtrl": _MASACTRL,
    "Direct + MasaCtrl": _MASACTRL,
    "DDIM + PnP": replace(_PNP, inversion={**_PNP.inversion, "pivot": "reconstruction_ahead"}),
    "Direct + PnP": _PNP,
    "DDIM + P2P-Zero": replace(_ZERO, inversion={**_ZERO.inversion, "direct": False}),
    "Direct + P2P-Zero": _ZERO,
}
"""How the rows with other controllers were made, by method."""


def is_setting(settings: Mapping[str, Any], protocol: Protocol) -> bool:
    """Whether what decided a run's numbers is what a row of the published table was made with.

    Args:
        settings: Of the run's summary.
        protocol: How the row was made.
    """
    nodes = {key: settings.get(key) or {} for key in ("inversion", "controller")}
    if not all(isinstance(node, Mapping) for node in nodes.values()):
        return False
    inversion, controller = (
        {key: value for key, value in node.items() if key != "_target_"} for node in nodes.values()
    )
    if protocol.controller is None:
        added = any(value for key, value in controller.items() if key not in ("cross", "self_attn"))
        fits = not added and _has(settings, _P2P)
    else:
        fits = controller == protocol.controller
    return inversion == protocol.inversion and fits and _is_shared(settings) and _is_ddim(settings)


Known = Mapping[str, Mapping[str, tuple[Any, ...]]]
"""By group of settings and key, the values that are those of the published table."""

_SHARED: Known = {
    "dataset": {"border": (True,)},
    "model": {
        "dtype": ("float32",),
        "size": (None, 512, [512, 512]),
        "lora": (None,),
        "embeddings": (None,),
        "record_fraction": (0.25,),
    },
    "sampler": {"guidance_interval": (None,), "spacing": (None,)},
    "run": {"repair": ("none",)},
}
"""What the settings of all rows are; one that a run does not tell is taken to be so."""

_P2P: Known = {"dataset": {"as_released": (True,), "blend_words": (True,)}}


def _has(settings: Mapping[str, Any], known: Known) -> bool:
    """Whether settings have those values, as far as a run tells them."""
    nodes = {group: settings.get(group) or {} for group in known}
    return all(isinstance(node, Mapping) for node in nodes.values()) and all(
        nodes[group].get(key, values[0]) in values
        for group, keys in known.items()
        for key, values in keys.items()
    )


def _is_ddim(settings: Mapping[str, Any]) -> bool:
    """Whether edits were sampled by DDIM without noise."""
    sampler = settings.get("sampler") or {}
    name = str(sampler.get("_target_", "DDIMSampler")).rpartition(".")[2]
    return name == "DDIMSampler" and sampler.get("eta", 0.0) == 0.0


def _is_shared(settings: Mapping[str, Any]) -> bool:
    """Whether a run has what all rows of the published table share, its pictures and CLIP among it."""
    metrics = settings.get("metrics") or {}
    if not isinstance(metrics, Mapping) or not all(isinstance(one, Mapping) for one in metrics.values()):
        return False
    jpeg = [one.get("jpeg", True) for key, one in metrics.items() if key.startswith("pie_")]
    clip = metrics.get("pie_clip", {}).get("backbone", CLIP)
    return _has(settings, _SHARED) and settings.get("seed") == 1234 and all(jpeg) and clip == CLIP


INSTRUCTED = "instruct"
"""The controller of the row whose images are edited by instructions; it has no inversion."""


def is_instructed(settings: Mapping[str, Any], rows: Sequence[Row]) -> bool:
    """Whether a run is InstructPix2Pix as in the published table.

    Args:
        settings: Of the run's summary.
        rows: Its rows.
    """
    editor, sampler = (settings.get(key) or {} for key in ("editor", "sampler"))
    if not isinstance(editor, Mapping) or not isinstance(sampler, Mapping):
        return False
    wanted = {"model": "instruct_pix2pix", "controller": INSTRUCTED, "steps": 50, "guidance": 7.5}
    return (
        _is_shared(settings)
        and editor.get("image_guidance", 1.5) == 1.5
        and sampler.get("ancestral") is True
        and sampler.get("spacing") is None
        and all(row.get("dataset") == _SET for row in rows)
        and all(row.get(key) == value for row in rows for key, value in wanted.items())
    )


def is_protocol(row: Row, protocol: Protocol) -> bool:
    """Whether an edit was made as those of the published table: model, sampler, schedules and data set."""
    wanted = {
        "model": protocol.model,
        "steps": 50,
        "guidance": 7.5,
        "tau_cross": protocol.tau_cross,
        "tau_self": protocol.tau_self,
    }
    return row.get("dataset") == _SET and all(row.get(key) == value for key, value in wanted.items())
