"""What the page of `p2p-bench studio` asks for, made by the same path as `p2p-bench edit`."""

import base64
import binascii
import logging
import re
import shlex
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from p2p_bench.app.build import chosen_options
from p2p_bench.app.compose import composing, config_dir, group_options
from p2p_bench.app.devices import single_device
from p2p_bench.app.one_edit import Asked, checked_request, composed_edit, source_image, task_of, variant_of
from p2p_bench.app.verbs.ls import purpose
from p2p_bench.errors import ConfigError, DataError, P2PError, nearest

if TYPE_CHECKING:
    from p2p_bench.bench.task import Task
    from p2p_bench.editing import EditRequest, EditResult
    from p2p_bench.editors.controlled import ControlledEditor

PAGE_KEYS = (
    "controller", "inversion", "sampler", "tau.cross", "tau.self_attn", "seed", "sampler.steps",
    "sampler.guidance",
)  # fmt: skip
"""Settings that the page has a control for; those that are typed are what it begins with."""

_FIXED = (
    "trainer.accelerator", "run.cache", "run.cache_gb", "run.truncate", "run.repair", "run.repair_feather",
    "run.trust", "hydra.searchpath",
)  # fmt: skip
_MORE = ("controller.", "inversion.", "sampler.", "run.repair", "run.truncate")
"""What further settings on the page may begin with."""

MOST_BYTES = 16 * 2**20
"""Of a picture's file."""

_MOST_LETTERS = 2000
_FITS = ("crop", "pad", "resize", "error")


class StoppedEditError(P2PError):
    """Somebody asked for the end of an edit."""


class BusyError(P2PError):
    """Another edit is being made."""


@dataclass(frozen=True)
class Form:
    """What the page sends.

    Attributes:
        source: Prompt of the source.
        target: Prompt of the edit.
        overrides: The page's settings as `KEY=VALUE`.
        image: Bytes of a picture's file.
        image_name: Its name.
        fit: What is done with one of another size.
    """

    source: str
    target: str
    overrides: tuple[str, ...]
    image: bytes | None = None
    image_name: str = ""
    fit: str = "crop"

    @classmethod
    def of(cls, data: Any) -> "Form":
        """The form as it came.

        Raises:
            P2PError: A value is missing or is none of its kind.
        """
        if not isinstance(data, Mapping):
            raise ConfigError("the page sent no form; load it again")
        image = data.get("image")
        overrides = list(_settings(data, image is not None))
        fit = data.get("fit", "crop")
        if fit not in _FITS:
            raise ConfigError(f"fit: expected one of {', '.join(_FITS)}, got {_brief(repr(fit))}")
        source, target = _text(data, "source"), _text(data, "target")
        if image is None:
            return cls(source, target, tuple(overrides))
        return cls(source, target, tuple(overrides), _bytes(image), _name(image), fit)


def _brief(text: str) -> str:
    """A text that may be long, for a message."""
    from p2p_bench.raster import shortened  # which loads NumPy

    return shortened(text)


def _text(data: Mapping[str, Any], key: str) -> str:
    value = data.get(key)
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"{key}: write a prompt")
    if len(value) > _MOST_LETTERS:
        raise ConfigError(f"{key}: expected at most {_MOST_LETTERS} letters, got {len(value)}")
    return value


def _settings(data: Mapping[str, Any], has_image: bool) -> Iterator[str]:
    """The settings of the page's controls, then the further ones."""
    for group in ("controller", "sampler", *(("inversion",) if has_image else ())):
        options, value = group_options(group), data.get(group)
        if value not in options:
            raise ConfigError(
                f"{group}: there is no {_brief(repr(value))}.{nearest(str(value)[:100], options)}"
            )
        yield f"{group}={value}"
    for key, name in _NUMBERS.items():
        value = data.get(name)
        if value is None or value == "":
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigError(f"{key}: expected a number, got {_brief(repr(value))}")
        yield f"{key}={value}"
    more = data.get("more") or ""
    if not isinstance(more, str) or len(more) > _MOST_LETTERS:
        raise ConfigError("more settings: expected KEY=VALUE on each line")
    for line in filter(None, map(_unquoted, more.splitlines())):
        if not line.startswith(_MORE) or "_target_" in line:
            raise ConfigError(
                f"{_brief(line)}: the page takes settings of what it shows: "
                f"{', '.join(f'{key}KEY=VALUE' if key.endswith('.') else key for key in _MORE)}; others go "
                "behind p2p-bench studio when it is started"
            )
        if line.partition("=")[0] in PAGE_KEYS:
            raise ConfigError(f"{_brief(line)}: set it by its control above")
        yield line


def _unquoted(line: str) -> str:
    """A line without the quotes that a shell would take away."""
    bare = line.strip()
    return bare[1:-1] if len(bare) > 1 and bare[0] == bare[-1] and bare[0] in "'\"" else bare


_NUMBERS = {
    "tau.cross": "cross",
    "tau.self_attn": "self_attn",
    "seed": "seed",
    "sampler.steps": "steps",
    "sampler.guidance": "guidance",
}


def _bytes(image: Any) -> bytes:
    data = image.get("data") if isinstance(image, Mapping) else None
    try:
        found = base64.b64decode(data if isinstance(data, str) else "?", validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError("image: the page sent no file; choose it again") from error
    if len(found) > MOST_BYTES:
        raise DataError(f"image: the file has {len(found) >> 20} MB; expected at most {MOST_BYTES >> 20} MB")
    return found


def _name(image: Mapping[str, Any]) -> str:
    """The file's name without anything that means something in a path."""
    clean = re.sub(r"[^\w.() -]+", "_", str(image.get("name", ""))).strip(". ")[-100:]
    return clean or "image"


class Studio:
    """A loaded model and the edits that are asked of it, one at a time.

    Args:
        typed: `KEY=VALUE` as typed.

    Raises:
        P2PError: Every fault of the settings; nothing is loaded.
    """

    def __init__(self, typed: Sequence[str]) -> None:
        for text in typed:
            key = text.partition("=")[0].lstrip("+~")
            if key not in (*PAGE_KEYS, *_FIXED) and key.partition(".")[0] not in ("model", "sampler"):
                raise ConfigError(
                    f"{text}: studio has no use for it; what may be set: model, model.KEY, sampler.KEY, "
                    f"{', '.join((*PAGE_KEYS, *_FIXED))}; controllers' own settings are for the page"
                )
        self._fixed = [text for text in typed if text.partition("=")[0] not in PAGE_KEYS]
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._editor: ControlledEditor | None = None
        self.progress = (0, 0)
        asked = Asked("a", ("a",))
        with composing():
            self.config = composed_edit(typed, asked)
            self._choices = chosen_options(self.config.hydra)
        self.first = first_values(self.config, self._choices, typed)

    def check(self) -> None:
        """Whether the model can be worked with; no weights are read.

        Raises:
            P2PError: It cannot.
        """
        self._task = task_of(self.config)
        spec = self._task.checkpoint.spec()
        if (unfit := self._task.editor.refusal(spec)) is not None:
            raise unfit
        self.device = single_device(self.config)
        steps = self._task.sampler.steps_on(spec)
        self.first["steps"] = steps if self.first["steps"] is None else self.first["steps"]
        if self.first["guidance"] is None:
            self.first["guidance"] = spec.guidance
        self.spec = spec

    def load(self) -> None:
        """Loads the model.

        Raises:
            MissingWeightsError: Its weights are not there.
        """
        from p2p_bench.editors import Equipment
        from p2p_bench.editors.controlled import ControlledEditor

        equipment = Equipment(self._task.checkpoint, self._task.sampler, None, cache=self._task.cache)
        editor = self._task.editor.ready(equipment, self.device)
        assert isinstance(editor, ControlledEditor), "Studio takes no other editor"
        self._editor = editor

    def stop(self) -> None:
        """Ends the edit in hand at its next step."""
        self._stop.set()

    def wait(self, seconds: float) -> bool:
        """Whether no edit is in hand any more, after so long at most."""
        free = self._lock.acquire(timeout=seconds)
        if free:
            self._lock.release()
        return free

    def edit(self, data: Any) -> dict[str, Any]:
        """One edit.

        Args:
            data: The form, as the page sent it.

        Returns:
            What the page shows, as plain values.

        Raises:
            P2PError: It cannot be made, or another one is being made.
        """
        form = Form.of(data)
        if not self._lock.acquire(blocking=False):
            raise BusyError("another edit is being made; wait for it, or stop it")
        try:
            self._stop.clear()
            self.progress = (0, 0)
            with _messages() as messages, tempfile.TemporaryDirectory(prefix="studio-") as folder:
                try:
                    return {**self._edited(form, Path(folder)), "messages": messages}
                except P2PError as error:
                    if folder in str(error):  # where the picture was put here says nothing to anybody
                        raise type(error)(str(error).replace(f"{folder}/", "")) from error
                    raise
        finally:
            self._lock.release()

    def _edited(self, form: Form, folder: Path) -> dict[str, Any]:
        from p2p_bench.app.python_lines import python_lines
        from p2p_bench.app.studio_pictures import shown

        overrides = [*self._fixed, *form.overrides]
        asked = Asked(form.source, (form.target,))
        if form.image is not None:
            path = folder / form.image_name
            path.write_bytes(form.image)
            asked = replace(asked, image=path, fit=form.fit)
        with composing():
            task = task_of(composed_edit(overrides, asked))
        image, fitted = source_image(task, asked)
        plain = variant_of(task).name != "none"
        request = checked_request(task, asked, image, plain)
        started = time.monotonic()
        result = self._made(task, request)
        named = asked if asked.image is None else replace(asked, image=Path(form.image_name))
        return {
            **shown(result, image, plain),
            "fitted": fitted,
            "seconds": round(time.monotonic() - started, 1),
            "command": command_line(named, overrides),
            "python": python_lines(task, named, request, self._loaded_by(), self.device),
        }

    def _made(self, task: "Task", request: "EditRequest") -> "EditResult":
        from p2p_bench.editing.request import raise_all
        from p2p_bench.editors import Equipment

        assert self._editor is not None, "loaded before"

        def step_done(step: int, steps: int) -> None:
            self.progress = (step, steps)
            if self._stop.is_set():
                raise StoppedEditError("the edit was stopped")

        equipment = Equipment(
            self._editor.equipment.checkpoint, task.sampler, None, task.truncate, task.cache
        )
        (result,) = replace(self._editor, equipment=equipment).edit([request], step_done)
        raise_all([error for error in result.errors if error is not None])
        return result

    def _loaded_by(self) -> str | None:
        """What `load_model` knows the model by; None where it has settings of its own."""
        own = [text for text in self._fixed if text.startswith("model.")]
        return None if own else self._choices["model"]


def first_values(config: DictConfig, choices: Mapping[str, str], typed: Sequence[str]) -> dict[str, Any]:
    """What the page's controls begin with."""
    inversion = choices["inversion"] if any(text.startswith("inversion=") for text in typed) else "ddim"
    return {
        "controller": choices["controller"],
        "sampler": choices["sampler"],
        "inversion": inversion,
        "cross": _slider("tau.cross", config.tau.cross),
        "self_attn": _slider("tau.self_attn", config.tau.self_attn),
        "seed": config.seed,
        "steps": config.sampler.get("steps"),
        "guidance": config.sampler.get("guidance"),
    }


def _slider(key: str, value: Any) -> float:
    if isinstance(value, int | float):
        return float(value)
    raise ConfigError(f"{key}: the page has a slider for a number in [0, 1], got {value}")


def offered() -> dict[str, list[dict[str, Any]]]:
    """What the page offers: options of a group with what they are for, and what they need besides."""
    found: dict[str, list[dict[str, Any]]] = {}
    for group in ("controller", "inversion", "sampler"):
        found[group] = []
        for name in group_options(group):
            if (group, name) == ("inversion", "none"):
                continue
            text = config_dir().joinpath(group, f"{name}.yaml").read_text(encoding="utf-8")
            node: Any = OmegaConf.to_container(OmegaConf.create(text))
            found[group].append(
                {
                    "name": name,
                    "purpose": purpose(group, name),
                    "needs": sorted(f"{group}.{key}" for key, value in node.items() if value == "???"),
                    "cross": "${tau.cross}" in text,
                    "self_attn": "${tau.self_attn}" in text,
                }
            )
    return found


def command_line(asked: Asked, overrides: Sequence[str]) -> str:
    """The command that makes the same edit."""
    words = ["p2p-bench", "edit", "--source", asked.source, "--target", asked.targets[0]]
    if asked.image is not None:
        words += ["--image", str(asked.image)]
        words += ["--fit", asked.fit] if asked.fit != "crop" else []
    return shlex.join([*words, *overrides])


@contextmanager
def _messages() -> Iterator[list[str]]:
    """What this thread is warned of meanwhile."""
    thread, texts = threading.get_ident(), list[str]()

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.thread == thread and record.getMessage() not in texts:
                texts.append(record.getMessage())

    handler, project = Kept(logging.WARNING), logging.getLogger("p2p_bench")
    project.addHandler(handler)
    try:
        yield texts
    finally:
        project.removeHandler(handler)
