"""Requests and settings as a caller in Python may make them by hand: of any type, whatever is annotated."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from torch import Tensor

from p2p_bench.cache import Cache
from p2p_bench.controllers import Controller
from p2p_bench.editing import arguments
from p2p_bench.editing.attention import Record
from p2p_bench.editing.budget import RowBudget
from p2p_bench.editing.repair import Repair
from p2p_bench.editing.request import EditRequest, Target
from p2p_bench.errors import ConfigError
from p2p_bench.inversion import Inversion
from p2p_bench.models import DiffusionModel
from p2p_bench.models.timesteps import SPACINGS
from p2p_bench.sampling import Stepper


def checked_requests(requests: Any) -> list[EditRequest]:
    """The requests of a call, none of them anything else or with a field of another type.

    Values are judged where they are used.

    Args:
        requests: What an editor was handed.

    Raises:
        ConfigError: There is one; names request and field.
    """
    if isinstance(requests, EditRequest | str | bytes | dict) or not isinstance(requests, Iterable):
        raise arguments.wrong("requests", "a list of EditRequest", requests)
    return [_checked(f"requests[{place}]", request) for place, request in enumerate(requests)]


def _checked(name: str, request: Any) -> EditRequest:
    """A request whose fields are of the types that are annotated, with Python's numbers for NumPy's."""
    arguments.instance(name, request, EditRequest, "an EditRequest")
    for key in ("id", "source_prompt"):
        arguments.text(f"{name}.{key}", getattr(request, key))
    number = arguments.whole(f"{name}.seed", request.seed)
    try:
        arguments.seed(number)
    except ConfigError as error:
        raise ConfigError(f"{name}.{error}") from error
    optional = {
        "noise": (Tensor, "a tensor (c, h, w)"),
        "image": (Tensor, "a tensor (3, h, w)"),
        "inversion": (Inversion, "an inversion, such as DDIMInversion()"),
        "inversion_prompt": (str, "text"),
        "repair": (Repair, "a Repair"),
    }
    for key, (kind, expected) in optional.items():
        _instance_or_none(f"{name}.{key}", getattr(request, key), kind, expected)
    scale = request.guidance
    if scale is not None:
        scale = arguments.number(f"{name}.guidance", scale)
    if not isinstance(request.targets, tuple | list):
        raise arguments.wrong(f"{name}.targets", "a tuple of Target", request.targets)
    for index, target in enumerate(request.targets):
        own = f"{name}.targets[{index}]"
        arguments.instance(own, target, Target, "a Target")
        arguments.text(f"{own}.prompt", target.prompt)
        arguments.instance(f"{own}.controller", target.controller, Controller, "a controller, as Replace()")
        _instance_or_none(f"{own}.instruction", target.instruction, str, "text")
    made: EditRequest = request
    plain = type(made.seed) is int and type(made.guidance) in (float, int, type(None))
    return made if plain else replace(made, seed=number, guidance=scale)


def check_settings(
    model: Any,
    steps: Any,
    guidance: Any,
    stepper: Any,
    spacing: Any,
    max_rows: Any,
    truncate: Any,
    progress: Any,
) -> None:
    """Refuses settings of a call of other types than `run_edits` takes.

    Raises:
        ConfigError: There is one; names it.
    """
    arguments.instance("model", model, DiffusionModel, "a model, as load_model gives it")
    if steps is not None:
        arguments.whole("steps", steps)
    if guidance is not None:
        arguments.number("guidance", guidance)
    _instance_or_none("stepper", stepper, Stepper, "a step function, such as DDIM()")
    arguments.one_of("spacing", spacing, SPACINGS)
    if not isinstance(max_rows, RowBudget):
        arguments.whole("max_rows", max_rows)
    arguments.flag("truncate", truncate)
    if progress is not None and not callable(progress):
        raise arguments.wrong("progress", "a function of (steps taken, steps in all)", progress)


def check_kept(record: Any, cache: Any) -> None:
    """The same of what is kept.

    Raises:
        ConfigError: There is a value of another type.
    """
    if not isinstance(record, Record):
        arguments.flag("record", record)
    _instance_or_none("cache", cache, Cache, "a Cache")


def _instance_or_none(name: str, value: Any, kind: type[Any], expected: str) -> None:
    if value is not None:
        arguments.instance(name, value, kind, f"{expected}, or None")
