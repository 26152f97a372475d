"""Inversions that were made before: found again by all that decides them, and by nothing else.

The key of an entry is a digest of the image's pixels, its prompt, the model's files, what its network is told
besides, noise levels, number format and way of rounding, the method with all its settings and the weights it
reads, the number of steps, the sample's seed where the method draws noise, and the code that inverts, its
libraries included. Target prompts, controllers and schedules are no part of it.
"""

import dataclasses
import functools
import hashlib
import json
import logging
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from p2p_bench.cache import Cache
from p2p_bench.hashing import digest, sha256_file
from p2p_bench.inversion.base import Inversion, Sources, StepProgress, no_tick, tick_all
from p2p_bench.inversion.checked import inverted
from p2p_bench.models.files import file_hash
from p2p_bench.models.model import DiffusionModel
from p2p_bench.sampling.replay import Replay

_CODE = ("attention", "inversion", "models", "prompts", "sampling")
"""Rooms whose code decides an inversion."""

_ALONE = ("guidance.py", "pinned.py", "precision.py")
"""Files outside of rooms that do."""

_LIBRARIES = ("torch", "diffusers", "transformers")
"""Packages that compute it."""

_HEADER = "replay"
log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Made:
    """A replay and where it comes from.

    Attributes:
        replay: The replay; its counts say what it costs to make.
        recalled: It was found, and nothing was spent on it.
    """

    replay: Replay
    recalled: bool = False


def invert_or_recall(
    inversion: Inversion,
    model: DiffusionModel,
    sources: Sources,
    steps: int,
    tick: StepProgress = no_tick,
    cache: Cache | None = None,
) -> list[Made]:
    """Inverts the images that the cache does not hold, and keeps what that has cost rows to make.

    Args:
        inversion: The method.
        model: The model.
        sources: The images.
        steps: Of the run.
        tick: Called `steps` times, whatever is found.
        cache: Where replays are looked for and kept; None always inverts.

    Raises:
        ValueError: The method gave something else than replays of the images, see `inverted`.
    """
    inversion = inversion.for_model(model.spec)
    if cache is None:
        return [Made(replay) for replay in inverted(inversion, model, sources, steps, tick)]
    keys = [replay_key(inversion, model, sources, place, steps) for place in range(len(sources))]
    found = [_recalled(cache, key, inversion, model.device) for key in keys]
    missing = [place for place, replay in enumerate(found) if replay is None]
    if not missing:
        tick_all(tick, steps)
        return [Made(replay, recalled=True) for replay in found if replay is not None]
    made = inverted(inversion, model, sources.part(missing), steps, tick)
    new = dict(zip(missing, made, strict=True))
    about = {"method": type(inversion).__name__, "model": model.spec.name, "steps": steps}
    entries = {
        keys[place]: (replay, {**about, "prompt": sources.prompts[place].text})
        for place, replay in new.items()
    }
    _keep(cache, entries)
    return [
        Made(new[place]) if replay is None else Made(replay, recalled=True)
        for place, replay in enumerate(found)
    ]


def replay_key(inversion: Inversion, model: DiffusionModel, sources: Sources, place: int, steps: int) -> str:
    """Digest of all that decides a replay.

    Args:
        inversion: The method.
        model: The model.
        sources: The images.
        place: Which of them.
        steps: Number of steps of the run.
    """
    prompt = sources.prompts[place]
    return digest(
        {
            "image": _tensor_digest(sources.images[place]),
            "prompt": [prompt.text, list(prompt.ids)],
            "model": list(model.identity),
            "levels": [[level.timestep, level.alpha, level.sigma] for level in model.ladder(steps)],
            "dtype": [str(model.dtype), *model.roundings],
            "method": settings_of(inversion.for_model(model.spec)),
            "weights": [file_hash(path) for path in inversion.files()],
            "seed": sources.seeds[place] if inversion.draws_noise else None,
            "code": _code_of(inversion),
        }
    )


def settings_of(value: Any) -> Any:
    """A method and its settings as plain values, for a key.

    Raises:
        TypeError: A setting is neither a plain value nor a dataclass of such.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple | list):
        return [settings_of(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): settings_of(item) for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: settings_of(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"class": f"{type(value).__module__}.{type(value).__qualname__}", **fields}
    raise TypeError(f"a setting of type {type(value).__name__} cannot be part of a key; use plain values")


def pack(replay: Replay) -> bytes:
    """A replay, or any frozen dataclass of tensors, plain values and such dataclasses, as safetensors.

    Raises:
        TypeError: A field is of another kind.
    """
    tensors: dict[str, Tensor] = {}
    plan = json.dumps(_packed(replay, "replay", tensors))
    return save(tensors, metadata={_HEADER: plan})


def unpack(body: bytes, inversion: Inversion, device: torch.device) -> Replay:
    """The replay that `pack` has written.

    Nothing is imported for it: its classes are looked up in the module of the method that asks.

    Args:
        body: What `pack` returned.
        inversion: The method that made the replay.
        device: Where its tensors go.

    Raises:
        ValueError: The bytes are not what this method writes.
    """
    try:
        tensors = load(body)
        plan = json.loads(_metadata(body)[_HEADER])
        replay = _unpacked(plan, {name: tensor.to(device) for name, tensor in tensors.items()}, inversion)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"not a replay of {type(inversion).__name__} ({error})") from error
    if not isinstance(replay, Replay):
        raise ValueError(f"not a replay but a {type(replay).__name__}")
    return replay


def _recalled(cache: Cache, key: str, inversion: Inversion, device: torch.device) -> Replay | None:
    body = cache.read(key)
    if body is None:
        return None
    try:
        return unpack(body, inversion, device)
    except ValueError as error:
        log.warning("cache: entry %s is %s; it is computed again", key[:12], error)
        return None


def _keep(cache: Cache, entries: Mapping[str, tuple[Replay, Mapping[str, Any]]]) -> None:
    """Keeps the replays that took passes of the network; the first failure is said and ends it."""
    for key, (replay, about) in entries.items():
        rows = replay.unet_rows + replay.unet_rows_backward
        if rows and not cache.write(key, pack(replay), {**about, "unet_rows": rows}):
            return


def _packed(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        tensors[name] = value.detach().cpu().contiguous()
        return {"tensor": name}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {"mapping": {key: _packed(item, f"{name}.{key}", tensors) for key, item in value.items()}}
    if isinstance(value, tuple):
        return {"tuple": [_packed(item, f"{name}.{place}", tensors) for place, item in enumerate(value)]}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [field.name for field in dataclasses.fields(value) if field.init]
        packed = {field: _packed(getattr(value, field), f"{name}.{field}", tensors) for field in fields}
        return {"class": type(value).__name__, "fields": packed}
    raise TypeError(f"{name}: a {type(value).__name__} cannot be kept; use tensors and plain values")


def _unpacked(plan: Any, tensors: Mapping[str, Tensor], inversion: Inversion) -> Any:
    if not isinstance(plan, dict):
        return plan
    if "tensor" in plan:
        return tensors[plan["tensor"]]
    if "mapping" in plan:
        return {key: _unpacked(item, tensors, inversion) for key, item in plan["mapping"].items()}
    if "tuple" in plan:
        return tuple(_unpacked(item, tensors, inversion) for item in plan["tuple"])
    fields = {name: _unpacked(item, tensors, inversion) for name, item in plan["fields"].items()}
    return _class_named(plan["class"], inversion)(**fields)


def _class_named(name: str, inversion: Inversion) -> type:
    for module in _modules_of(inversion):
        found = getattr(sys.modules[module], name, None)
        if isinstance(found, type) and dataclasses.is_dataclass(found):
            return found
    raise ValueError(f"{name!r} is no dataclass of this method's module")


def _modules_of(inversion: Inversion) -> Iterator[str]:
    """The modules of a method and of those it wraps."""
    yield type(inversion).__module__
    for field in dataclasses.fields(inversion):  # type: ignore[arg-type]  # inversions are dataclasses
        inner = getattr(inversion, field.name)
        if isinstance(inner, Inversion):
            yield from _modules_of(inner)


def _metadata(body: bytes) -> dict[str, str]:
    """The strings in the header of a safetensors file: JSON after its length in eight bytes."""
    length = int.from_bytes(body[:8], "little")
    metadata = json.loads(body[8 : 8 + length])["__metadata__"]
    assert isinstance(metadata, dict)
    return metadata


def _tensor_digest(tensor: Tensor) -> str:
    plain = tensor.detach().cpu().contiguous()
    head = f"{plain.dtype} {tuple(plain.shape)} ".encode()
    return hashlib.sha256(head + plain.numpy().tobytes()).hexdigest()


def _code_of(inversion: Inversion) -> str:
    """Of the files that invert, so that a change of a method is not answered by what it did before."""
    files = {str(getattr(sys.modules[module], "__file__", None)) for module in _modules_of(inversion)}
    paths = [Path(file).resolve() for file in sorted(files)]
    foreign = [sha256_file(path) for path in paths if path.is_file() and _PACKAGE not in path.parents]
    return digest([_code_digest(), *foreign]) if foreign else _code_digest()


_PACKAGE = Path(__file__).resolve().parent.parent


@functools.cache
def _code_digest() -> str:
    """Of the files of this package, and of the libraries by their versions, whatever they were built for."""
    package = _PACKAGE
    files = [path for room in _CODE for path in sorted((package / room).glob("*.py"))]
    files += [package / name for name in _ALONE]
    libraries = {name: version(name).partition("+")[0] for name in _LIBRARIES}
    return digest([{str(path.relative_to(package)): sha256_file(path) for path in files}, libraries])
