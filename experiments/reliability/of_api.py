"""Arguments of the Python API, of every kind."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cases import Case, Outcome, call, tiny

import p2p_bench as p2p

SOURCE, TARGET = "a red circle on grass", "a blue circle on grass"
OBJECT = object()
NO_NUMBER: tuple[Any, ...] = (
    "4",
    None,
    [],
    {},
    OBJECT,
    float("nan"),
    float("inf"),
    -1,
    1j,
    torch.tensor([1.0, 2.0]),
    b"1",
)
NO_TEXT: tuple[Any, ...] = (None, 3, [], {}, b"a cat", OBJECT, "", "  ", ["a cat"], float("nan"))
IMAGE = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))

# argument -> (values that must work, values that must be refused)
ARGUMENTS: dict[str, tuple[tuple[Any, ...], tuple[Any, ...]]] = {
    "source": ((SOURCE, "a cat, on sand."), NO_TEXT),
    "targets": (
        (TARGET, [TARGET], (TARGET, "a star on sand")),
        (None, 3, [], {}, OBJECT, "", [""], [TARGET, None], [3], b"a cat", [[TARGET]]),
    ),
    "controller": (
        (None, p2p.Refine(), [p2p.Replace()], "replace", "none"),
        ("replce", 3, [], {}, OBJECT, [p2p.Replace()] * 2, [3], p2p.Replace, "a/b", ""),
    ),
    "seed": (
        (0, 7, np.int64(3), np.uint8(3), 2**40),
        ("4", None, 1.5, -1, [], OBJECT, 2**64, float("nan"), True),
    ),
    "steps": (
        (1, 3, np.int32(2), None),
        ("4", 0, -1, 1.5, [], OBJECT, 1001, 10**9, 10**20, float("nan"), True),
    ),
    "guidance": ((1, 4.0, np.float32(3), None), (0, *(value for value in NO_NUMBER if value is not None))),
    "eta": ((0.0, 1, np.float64(0.5)), (*NO_NUMBER, 1.1)),
    "noise": (
        (None, torch.zeros(4, 8, 8), torch.zeros(1, 4, 8, 8)),
        (
            "x",
            3,
            torch.zeros(3, 8, 8),
            torch.zeros(4, 8, 8).long(),
            [],
            OBJECT,
            torch.full((4, 8, 8), torch.nan),
        ),
    ),
    "image": (
        (None, IMAGE, IMAGE[None], (IMAGE * 255).byte().permute(1, 2, 0).numpy()),
        (
            3,
            [],
            OBJECT,
            "nowhere.png",
            Path("nowhere.png"),
            IMAGE * 2,
            IMAGE - 1,
            IMAGE[:2],
            IMAGE * torch.nan,
            b"x",
            "",
        ),
    ),
    "inversion": ((None,), ("ddm", 3, [], OBJECT, p2p.Replace(), "a/b", "")),
    "record": ((True, False, None), ("x", 3, OBJECT, [])),
    "truncate": ((True, False), ("x", None, 3, OBJECT, [])),
    "repair": ((False,), ("x", 3, OBJECT, [])),
    "fit": ((None, "crop"), ("crp", 3, OBJECT, [])),
    "progress": ((None, lambda step, steps: None), ("x", 3, [])),
    "cache": ((None,), ("x", 3, True, [])),
}
MODEL_ARGUMENTS: dict[str, tuple[tuple[Any, ...], tuple[Any, ...]]] = {
    "name": (
        (),
        (None, 3, [], {}, OBJECT, "", "wrld", "a/b", "nowhere/at/all", "\0", "x" * 5000, b"world", Path(".")),
    ),
    "device": (("cpu", torch.device("cpu")), ("gpu", "", 3.5, [], OBJECT, "cuda:99", "meta", "cpu:x", "tpu")),
    "dtype": (
        (None, torch.float32, torch.float64),
        ("float31", 3, [], OBJECT, torch.int64, torch.bool, float),
    ),
}
NAMES = {"name": ("name", "model"), "targets": ("target",)}
"""What messages may call an argument, where that is not its name alone."""

CONTROLLERS: tuple[tuple[str, Callable[[], Any], bool], ...] = (
    ("Replace()", lambda: p2p.Replace(), True),
    ("Replace(cross=1)", lambda: p2p.Replace(cross=1), True),
    ("Replace(cross=np.float32(.5))", lambda: p2p.Replace(cross=np.float32(0.5)), True),
    ("Replace(cross=(0, .5))", lambda: p2p.Replace(cross=(0, 0.5)), True),
    ("Replace(cross={'circle': .5})", lambda: p2p.Replace(cross={"circle": 0.5, "default_": 1}), True),
    ("Replace(cross=2)", lambda: p2p.Replace(cross=2), False),
    ("Replace(cross='x')", lambda: p2p.Replace(cross="x"), False),
    ("Replace(cross=nan)", lambda: p2p.Replace(cross=float("nan")), False),
    ("Replace(cross=None)", lambda: p2p.Replace(cross=None), False),
    ("Replace(cross={'zebra': 1})", lambda: p2p.Replace(cross={"zebra": 0.5}), False),
    ("Replace(self_attn=-1)", lambda: p2p.Replace(self_attn=-1), False),
    ("Replace(self_attn=object())", lambda: p2p.Replace(self_attn=OBJECT), False),
    ("Reweight({'circle': 3})", lambda: p2p.Reweight({"circle": 3}, inner=p2p.Replace()), True),
    ("Reweight({})", lambda: p2p.Reweight({}), False),
    ("Reweight({'zebra': 3})", lambda: p2p.Reweight({"zebra": 3}), False),
    ("Reweight({'circle': 'x'})", lambda: p2p.Reweight({"circle": "x"}), False),
    ("Reweight({'circle': nan})", lambda: p2p.Reweight({"circle": float("nan")}), False),
    ("Reweight(3)", lambda: p2p.Reweight(3), False),
    ("Reweight([('circle', 3)])", lambda: p2p.Reweight([("circle", 3)]), False),
    ("Reweight({3: 3})", lambda: p2p.Reweight({3: 3}), False),
)


def cases(rng: random.Random, count: int) -> Iterator[Case]:
    """Each value of each argument alone, each controller, then several arguments together."""
    made = 0
    for arguments, run in ((ARGUMENTS, _edit), (MODEL_ARGUMENTS, _load)):
        for name, (good, bad) in arguments.items():
            for valid, values in ((True, good), (False, bad)):
                for value in values:
                    yield _case(
                        run,
                        f"{'' if valid else 'wrong '}{name}",
                        {name: value},
                        valid,
                        () if valid else NAMES.get(name, (name,)),
                    )
                    made += 1
    for text, make, valid in CONTROLLERS:
        yield Case("python", "controller's own values", valid, _bind(make), text)
        made += 1
    for _ in range(count - made):
        yield _several(rng)


def _bind(make: Callable[[], Any]) -> Callable[[], Outcome]:
    return lambda: call(lambda: _edited({"controller": make()}))


def _several(rng: random.Random) -> Case:
    names = rng.sample([name for name in ARGUMENTS if name not in ("noise", "image", "inversion")], 3)
    wrong = rng.choice(names) if rng.random() < 0.6 else None
    chosen = {name: rng.choice(ARGUMENTS[name][1 if name == wrong else 0]) for name in names}
    if wrong != "controller" and isinstance(chosen.get("controller"), list):
        chosen["controller"] = None  # one for each target, whose number another argument may have changed
    if chosen.get("controller") == "replace":
        chosen["controller"] = "auto"  # which suits whatever prompts there are
    return _case(
        _edit, "several arguments", chosen, wrong is None, () if wrong is None else NAMES.get(wrong, (wrong,))
    )


def _case(
    run: Callable[[dict[str, Any]], Outcome],
    kind: str,
    chosen: dict[str, Any],
    valid: bool,
    names: tuple[str, ...],
) -> Case:
    return Case("python", kind, valid, lambda: run(chosen), repr(chosen), names)


def _edit(chosen: dict[str, Any]) -> Outcome:
    return call(lambda: _edited(chosen))


def _edited(chosen: dict[str, Any]) -> str | None:
    arguments = {"source": SOURCE, "targets": TARGET, "controller": p2p.Replace(), "steps": 2, **chosen}
    if arguments.get("source") != SOURCE and "controller" not in chosen:
        arguments["controller"] = None
    if (
        isinstance(arguments["targets"], list | tuple)
        and len(arguments["targets"]) > 1
        and "controller" not in chosen
    ):
        arguments["controller"] = None
    model = tiny().tiny_model(torch.float32)
    result = p2p.edit(model, **arguments)
    wanted = 1 + (1 if isinstance(arguments["targets"], str) else len(arguments["targets"]))
    if tuple(result.images.shape) != (wanted, 3, 16, 16):
        return f"images are {tuple(result.images.shape)}"
    return None if result.images.isfinite().all() else "images are not finite"


def _load(chosen: dict[str, Any]) -> Outcome:
    arguments = {"name": tiny().tiny_checkpoint().path, **chosen}
    return call(lambda: None if p2p.load_model(**arguments) is not None else "no model")
