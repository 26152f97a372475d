"""Settings on the command line: values of every kind for every key, and lines that are no settings."""

import json
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from uuid import uuid4

from cases import Case, Outcome, command, empty_folder, tiny
from PIL import Image

PAIRS = (
    {"id": "swap", "source": "a red circle on grass", "target": "a blue circle on grass"},
    {"id": "real", "source": "a cat on sand", "target": "a dog on sand", "image": "cat.png"},
)
NO_INTEGER = ("x", "1.5", "[1]", "{a: 1}", "nan", "true")
NO_NUMBER = ("x", "[1]", "{a: 1}", "nan", "inf", "true")
NO_FLAG = ("maybe", "[true]", "{a: true}", "nan")
NO_SHARE = ("1.5", "-0.1", "x", "nan", "inf", "[0.8,0.2]", "[1,2,3]", "[x]", "1e9")

# key -> (values that must run, values that must be refused); a group's option stands before its key.
SETTINGS: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    "seed": (("0", "7", "1099511627776"), (*NO_INTEGER, "-1", "null")),
    "run.batch_size": (("1", "2", "64"), (*NO_INTEGER, "0", "-1", "null")),
    "run.baseline": (("true", "false"), NO_FLAG),
    "run.images": (("0", "1", "null"), (*NO_INTEGER, "-1")),
    "run.heatmaps": (("true", "false"), NO_FLAG),
    "run.truncate": (("true", "false"), NO_FLAG),
    "run.repair": (("none", "words"), ("wrds", "3", "null", "[none]")),
    "run.repair_feather": (("0", "1.5"), (*NO_NUMBER, "-1")),
    "run.cache": (
        ("true", "false", "kept", "memory://fuzz/cache"),
        ("3", "[a]", "''", "{a: b}", "nowhere://bucket/cache", "s4://bucket"),
    ),
    "run.output": (
        ("null", "memory://fuzz/output", "memory://fuzz/ü"),
        ("bucket/folder", "3", "[a]", "''", "{a: b}", "nowhere://bucket", "://bucket", "s3:bucket"),
    ),
    "run.cache_gb": (("0.1", "4"), (*NO_NUMBER, "0", "-1")),
    "run.name": (("a", "n-1", "'a b'"), ("a/b", "'..'", "''", "'a\\b'", "[a]", "null")),
    "tau.cross": (("0", "1", "0.5", "[0.2,0.8]", "{default_: 0.5}"), (*NO_SHARE, "{default_: 2}", "[]")),
    "tau.self_attn": (("0", "1", "0.25", "[0,0.5]"), (*NO_SHARE, "[]")),
    "tau.sweep": (
        ("null", "[{cross: 0.1}]", "[{cross: 0.1},{cross: 0.9,self_attn: 0}]"),
        ("[]", "[{crss: 1}]", "x", "[{cross: 2}]", "[3]", "{cross: 1}"),
    ),
    "sampler.steps": (
        ("1", "2", "3", "5", "null"),
        (*NO_INTEGER, "0", "-1", "1001", "1000000000", "100000000000000000000"),
    ),
    "sampler.guidance": (("1", "4", "7.5", "null"), (*NO_NUMBER, "-1", "0")),
    "sampler.eta": (("0",), (*NO_NUMBER, "-0.1", "1.1")),
    "inversion=none sampler.eta": (("0.5", "1"), ("1.5",)),
    "sampler.max_rows": (("8", "64"), (*NO_INTEGER, "0", "-1")),
    "dataset.limit": (("1", "2", "null"), (*NO_INTEGER, "0", "-1")),
    "dataset.fit": (("crop", "pad", "resize", "error"), ("crp", "3", "null")),
    "dataset.root": (("null", "."), ("nowhere", "3", "[a]")),
    "dataset.path": (
        ("pairs.jsonl", "./pairs.jsonl"),
        ("nowhere.jsonl", ".", "cat.png", "''", "null", "[a]"),
    ),
    "model.path": ((), ("nowhere", "''", ".", "cat.png", "null", "3", "no/where")),
    "model.dtype": (("float32", "float64", "bfloat16"), ("float31", "3", "int8", "null", "[float32]")),
    "model.steps": (("1", "3"), (*NO_INTEGER, "0", "-1")),
    "model.guidance": (("1", "3"), (*NO_NUMBER, "-1", "0")),
    "model.self_fraction": (("0.5", "1"), (*NO_NUMBER, "0", "1.1", "-1")),
    "trainer.accelerator": (("cpu", "auto"), ("tpuu", "3", "[cpu]")),
    "trainer.devices": (("1",), ("0", "x", "-2", "2")),
    "trainer.limit_test_batches": (("1.0",), ("0.5", "x", "-1", "0")),
    "trainer.fast_dev_run": (("false",), ("true", "x", "3")),
    "controller=masactrl controller.start_step": (("0", "1", "0.5"), ("x", "-1", "nan", "[1]")),
    "controller=masactrl controller.layers": (("0", "1", "0.5"), ("x", "-1", "nan")),
    "controller=refine controller.cross": (("0.5", "[0,0.5]"), NO_SHARE),
    "controller=self_attention controller.fraction": (("0.5", "null"), ("x", "0", "-1", "2", "nan")),
    "controller=reweight controller.weights": (
        ("{on: 2}", "{on: -1.5}", "{on: 0}"),
        ("{on: x}", "{on: nan}", "{zebra: 2}", "3", "[on]", "{}", "x"),
    ),
    "controller=replace controller.align": (("true", "false"), ("maybe", "[true]")),
    "controller=local_blend controller.words": (("[on]",), ("[zebra]", "3", "[]", "{a: b}")),
    "controller=local_blend controller.words=[on] controller.threshold": (
        ("0.3", "0.5"),
        ("x", "-1", "2", "nan"),
    ),
    "controller=local_blend controller.words=[on] controller.start": (("0", "0.2"), ("x", "-1", "nan")),
    "inversion=noising inversion.strength": (("0.5", "1"), (*NO_NUMBER, "-1", "1.1", "0")),
    "inversion=ddim inversion.guidance": (("1", "4"), (*NO_NUMBER, "-1")),
    "inversion=null_text inversion.learning_rate": (("0.01", "0.1"), (*NO_NUMBER, "-1")),
    "inversion=null_text inversion.inner_steps": (("1", "2"), (*NO_INTEGER, "-1")),
    "inversion=edict inversion.p": (("0.93",), (*NO_NUMBER, "0", "-1", "1.5")),
    "inversion=edit_friendly inversion.skip": (("0.0", "0.5"), (*NO_NUMBER, "-1", "1.5")),
}
OPTIONS = {
    "controller": (
        "replace",
        "refine",
        "none",
        "auto",
        "self_attention",
        "masactrl",
        "paper",
        "notebook",
        "pie",
    ),
    "inversion": (
        "ddim",
        "noising",
        "null_text",
        "negative_prompt",
        "direct",
        "edit_friendly",
        "renoise",
        "none",
    ),
    "metrics": ("none", "pixel"),
    "logger": ("csv", "none", "[csv]"),
    "tau": ("default", "sweep3", "smooth"),
    "dataset": (),
    "sampler": ("ddim",),
    "trainer": ("default",),
}
NO_SETTINGS = (
    "=3", "seed=", "+", "++", "~", "~seed", "seed", "a b", "tau.cross=[", "tau.cross={", "seed=1=2", "@",
    "seed:3", "tau..cross=1", ".=1", "tau.=1", ".tau=1", "tau.cross=0.2,0.4", "tau=", "tau=3",
    "tau=[default]", "run=x", "run=null", "sampler=null", "controller=null", "seed=${nope}",
    "seed=${oc.env:NO_SUCH_VARIABLE}", "run.name=${nope}", "seed=${oc.env:HOME}", "seed='", 'seed="',
    "tau.cross=range(0,1,0)", "tau.cross=glob(*)", "seed=choice()", "seed=interval(0,1)", "seed=sort()",
    "seed=${", "seed=}", "🙂=1", "seed=🙂", "séed=1", "hydra/launcher=nope", "hydra/sweeper=nope",
    "hydra.nope=3", "experiment=nope", "+experiment=nope", "seed=0x", "~model", "model=~", "model@x=world",
    "trainer._partial_=false", "model._target_=os.system", "model._target_=nope.nope",
    "controller._target_=builtins.eval", "sampler._target_=torch.load", "+run.extra=1", "+tau.extra=1",
    "extra=1", "+extra=1", "dataset._target_=3", "metrics.x=3", "+metrics.x._target_=os.getcwd",
    "logger._target_=x", "run.dir=",
)  # fmt: skip


def cases(rng: random.Random, count: int) -> Iterator[Case]:
    """About `count` cases: each line that is no setting, each value alone, then draws of several together."""
    yield from (_case("no setting", [line], False, ()) for line in NO_SETTINGS)
    made = len(NO_SETTINGS)
    for group, options in OPTIONS.items():
        yield from (_case(f"option of {group}", [f"{group}={option}"], True, ()) for option in options)
        wrong = [f"{group}={_typo(option, rng)}" for option in (*options, "world")]
        yield from (_case(f"misspelt option of {group}", [line], False, (group,)) for line in wrong)
        made += len(options) + len(wrong)
    for key, (good, bad) in SETTINGS.items():
        name = key.split()[-1]
        yield from (_case(f"value of {name}", _lines(key, value), True, ()) for value in good)
        yield from (
            _case(f"wrong value of {name}", _lines(key, value), False, _names(name, value)) for value in bad
        )
        yield _case("misspelt key", [f"{_typo(name, rng)}=1"], False, ("key", "not"))
        made += len(good) + len(bad) + 1
    for _ in range(count - made):
        yield _several(rng)


def _several(rng: random.Random) -> Case:
    """Some settings together; invalid as soon as one is. Options of groups that keys need stand first."""
    plain = [key for key in SETTINGS if " " not in key and SETTINGS[key][0]]
    keys = rng.sample(plain, rng.randint(2, 5))
    wrong = rng.choice(keys) if rng.random() < 0.6 else None
    lines = [f"{key}={rng.choice(SETTINGS[key][1 if key == wrong else 0])}" for key in keys]
    if "tau.sweep" in keys:  # a sweep replaces the one schedule, whose faults then decide nothing
        lines = [line for line in lines if not line.startswith(("tau.cross", "tau.self_attn"))]
        wrong = None if wrong in ("tau.cross", "tau.self_attn") else wrong
    return _case("several settings", lines, wrong is None, () if wrong is None else _names(wrong))


def _lines(key: str, value: str) -> list[str]:
    *before, last = key.split()
    return [*before, f"{last}={value}"]


def _names(key: str, value: str = "") -> tuple[str, ...]:
    """What a message about a key may name: the key, or a word of its value."""
    return key, key.split(".")[-1], key.split(".")[0] + " 'local'", *re.findall(r"[a-z.]{4,}", value)


def _typo(word: str, rng: random.Random) -> str:
    """The word with a letter less."""
    letters = [index for index, letter in enumerate(word) if letter.isalpha()]
    gone = rng.choice(letters)
    return word[:gone] + word[gone + 1 :] + "q"


def _case(kind: str, lines: Sequence[str], valid: bool, names: tuple[str, ...]) -> Case:
    return Case("settings", kind, valid, lambda: _run(lines), " ".join(lines), names)


def _run(lines: Sequence[str]) -> Outcome:
    store = f"memory://{uuid4().hex}"  # which outlives a case
    with empty_folder() as folder:
        write_pairs(folder)
        return command(*base(folder), *(line.replace("memory://fuzz", store) for line in lines))


def base(folder: Path) -> list[str]:
    """Settings of a run that takes a second."""
    path = tiny().tiny_checkpoint().path
    return [
        *("model=local", f"model.path={path}", "model.record_fraction=0.5", "dataset=jsonl"),
        *(f"dataset.path={folder / 'pairs.jsonl'}", "metrics=none", "logger=none", "sampler.steps=2"),
        *("run.cache=false", "trainer.accelerator=cpu"),
    ]


def write_pairs(folder: Path) -> None:
    """Two pairs, one of them with an image."""
    Image.new("RGB", (16, 16), (200, 40, 90)).save(folder / "cat.png")
    text = "".join(json.dumps(pair) + "\n" for pair in PAIRS)
    (folder / "pairs.jsonl").write_text(text, encoding="utf-8")
