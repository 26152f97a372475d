"""The Python lines that make an edit, written from the very objects that made it."""

import json
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import p2p_bench as p2p
from p2p_bench.app.one_edit import Asked
from p2p_bench.bench.task import Task
from p2p_bench.controllers import Controller
from p2p_bench.editing import EditRequest
from p2p_bench.sampling import DDIMSampler

_LONGEST = 4000
"""Letters of lines that a reader can still use."""

_OF_CALL = ("steps", "guidance", "spacing")
"""What of a sampler is an argument of `edit`."""


@dataclass
class _Writer:
    """Writes values as Python, and notes what has to be imported for them."""

    imports: set[str] = field(default_factory=set)

    def text(self, value: Any) -> str:
        """A value as an expression.

        Raises:
            TypeError: It is nothing that can be written.
        """
        if is_dataclass(value) and not isinstance(value, type):
            return self._made(value)
        if isinstance(value, Path | str):
            return json.dumps(str(value), ensure_ascii=False)  # as Python's own, in double quotes
        if isinstance(value, Mapping):
            return "{" + ", ".join(f"{self.text(key)}: {self.text(one)}" for key, one in value.items()) + "}"
        if isinstance(value, tuple | list):
            inner = ", ".join(map(self.text, value))
            if isinstance(value, list):
                return f"[{inner}]"
            return f"({inner},)" if len(value) == 1 else f"({inner})"
        if value is None or isinstance(value, bool | int | float):
            return repr(value)
        raise TypeError(type(value).__name__)

    def _made(self, value: Any) -> str:
        name = type(value).__name__
        if name in p2p.__all__:
            called = f"p2p.{name}"
        else:
            called = name
            self.imports.add(f"from {type(value).__module__} import {name}")
        given = [
            f"{one.name}={self.text(_short(one.name, getattr(value, one.name)))}"
            for one in fields(value)
            if one.init and not _is_default(one, getattr(value, one.name))
        ]
        return f"{called}({', '.join(given)})"


def _short(name: str, value: Any) -> Any:
    """An interval from the first step on as the number that it was written as."""
    from_start = isinstance(value, tuple) and len(value) == 2 and value[0] == 0
    return value[1] if name in ("cross", "self_attn") and from_start else value


def _is_default(one: "Field[Any]", value: Any) -> bool:
    if one.default is not MISSING:
        return bool(type(one.default) is type(value) and one.default == value)
    return one.default_factory is not MISSING and bool(one.default_factory() == value)


def python_lines(task: Task, asked: Asked, request: EditRequest, model: str | None, device: str) -> str:
    """A call of `p2p_bench.edit` that makes the last target of a request.

    Args:
        task: The settings.
        asked: What is edited.
        request: What the editor was asked for.
        model: What `load_model` loads it by; None: by its settings.
        device: Where it is.

    Returns:
        Lines of Python; "" where the settings are nothing that can be written.
    """
    writer = _Writer()
    try:
        lines = _call(writer, task, asked, request.targets[-1].controller)
        place = "" if device == "cpu" else f", device={writer.text(device)}"
        loaded = (
            f"p2p.load_model({writer.text(model)}{place})"
            if model is not None
            else f"{writer.text(task.checkpoint)}.load({writer.text(device)})"
        )
        if request.repair is not None:
            lines.append(f"repair={writer.text(request.repair)}")
    except TypeError:
        return ""
    called = "".join(f"    {line},\n" for line in lines)
    imports = "".join(f"{line}\n" for line in ("import p2p_bench as p2p", *sorted(writer.imports)))
    text = (
        f'{imports}\nmodel = {loaded}\nresult = p2p.edit(\n    model,\n{called})\nresult.save("pictures")\n'
    )
    return text if len(text) <= _LONGEST else ""


def _call(writer: _Writer, task: Task, asked: Asked, controller: Controller) -> list[str]:
    """The arguments after the model."""
    lines = [writer.text(one) for one in (asked.source, list(asked.targets), controller)]
    if asked.image is not None:
        lines += [f"image={writer.text(asked.image)}", f"inversion={writer.text(task.inversion)}"]
        lines += [f"fit={writer.text(asked.fit)}"] if asked.fit != "crop" else []
    sampler = task.sampler
    lines.append(f"seed={task.seed}")
    lines += [
        f"{key}={writer.text(getattr(sampler, key))}" for key in _OF_CALL if getattr(sampler, key) is not None
    ]
    if type(sampler) is not DDIMSampler or sampler.guidance_interval is not None:
        lines.append(f"sampler={writer.text(sampler)}")
    elif sampler.eta:
        lines.append(f"eta={sampler.eta!r}")
    return [*lines, *(["truncate=True"] if task.truncate else [])]
