"""Counts the CPU seconds that commands need before they do anything, each in a process of its own.

    python experiments/startup/measure.py [--rounds 5]

Prints a table of medians and writes it to results.md beside this file. A round starts every command once, in
an order that changes from round to round, so that whatever else the machine does meets all alike. Times are
user and system time of the whole process, on one thread.
"""

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
COMMAND = [sys.executable, "-m", "p2p_bench"]
EDIT = ["edit", "--source", "a red circle on grass", "--target", "a blue circle on grass", "sampler.steps=1"]
TORCH, MODEL, EDITS = (
    "import of torch",
    "the same, and the model's own classes",
    "import of all that edit imports",
)
IMPORTS = {
    TORCH: "import torch",
    MODEL: (
        "import torch; from diffusers import AutoencoderKL, UNet2DConditionModel; "
        "from transformers import CLIPTextModel, CLIPTokenizer"
    ),
}
FAULTS: Mapping[str, Sequence[str]] = {
    "unknown verb": ["rn"],
    "unknown key": ["tau.cros=0.6"],
    "unknown key of a component": ["controller.crss=0.6"],
    "unknown option": ["controller=replce"],
    "value out of range": ["tau.cross=1.6"],
    "value of the wrong type": ["dataset.limit=many"],
    "value of a sweep": ["-m", "tau.cross=0.2,1.7"],
    "sampler: no steps": ["sampler.steps=0"],
    "sampler: more steps than the model was trained on": ["sampler.steps=1001"],
    "inversion: learning rate": ["inversion=null_text", "inversion.learning_rate=-1"],
    "data set: no pairs": ["dataset.limit=0"],
    "data set: no such file": ["dataset=jsonl", "dataset.path=nowhere.jsonl"],
    "model: no such folder": ["model=local", "model.path=./nowhere"],
    "model: never fetched": ["model=sd14"],
    "metric: unknown network": ["metrics.lpips.net=alx"],
    "controller: its own tau": ["controller=pie", "controller.cross=1.6"],
    "controller: words": ["controller=inject_words", "controller.words=[]"],
    "repair": ["run.repair=word"],
    "faults of several parts": ["tau.cross=1.6", "sampler.steps=0", "dataset.limit=0", "seed=-1"],
    "a fault beside good values": ["tau.cross=1.6", "sampler.steps=9", "trainer.accelerator=cpu"],
    "edit: value out of range": [*EDIT, "tau.cross=1.6"],
    "edit: no steps": [*EDIT[:5], "sampler.steps=0"],
    "edit: no such image": [*EDIT, "--image", "nowhere.png"],
    "edit: no target": EDIT[:3],
    "report: no such folder": ["report", "nowhere"],
    "resume: no such folder": ["resume", "nowhere"],
    "cache: unknown word": ["cache", "lst"],
    "doctor: unknown word": ["doctor", "x"],
    "dashboard: no folder": ["dashboard"],
    "train-world: unknown key": ["train-world", "world.x=1"],
}
SHOWS: Mapping[str, Sequence[str]] = {
    "--version": ["--version"],
    "--help": ["--help"],
    "run --help": ["run", "--help"],
    "--cfg job": ["--cfg", "job"],
}
_LISTED = """
import json, sys
from p2p_bench.app.main import run_verb
assert run_verb(json.loads(sys.argv[1])) == 0
names = [name for name, module in sys.modules.items() if getattr(module, "__spec__", None) is not None]
print(json.dumps([name for name in names if name != "__main__"]))
"""
_AGAIN = """
import importlib, json, sys
for name in json.load(open(sys.argv[1])):
    try:
        importlib.import_module(name)
    except Exception:  # noqa: BLE001  # a module that another one makes, and no file holds
        pass
"""


def main() -> None:
    """Measures, prints and writes the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        commands = all_commands(Path(folder))
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        shuffled, rng = list(commands), random.Random(0)
        for _ in range(rounds):
            rng.shuffle(shuffled)
            for name in shuffled:
                seconds[name].append(cpu_seconds(commands[name], Path(folder)))
    text = table({name: statistics.median(found) for name, found in seconds.items()}, rounds)
    (HERE / "results.md").write_text(text, encoding="utf-8")
    print(text)


def all_commands(folder: Path) -> dict[str, list[str]]:
    """What is timed, by name. The list of what `edit` imports is made here."""
    edit = [*EDIT, "--out", str(folder / "edit")]
    listed = subprocess.run(
        [sys.executable, "-c", _LISTED, json.dumps(edit)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    names = folder / "modules.json"
    names.write_text(listed.stdout.splitlines()[-1], encoding="utf-8")
    return {
        **{name: [sys.executable, "-c", code] for name, code in IMPORTS.items()},
        EDITS: [sys.executable, "-c", _AGAIN, str(names)],
        "edit, one step, from start to end": [*COMMAND, *edit],
        **{name: [*COMMAND, *arguments] for name, arguments in (*SHOWS.items(), *FAULTS.items())},
    }


def cpu_seconds(command: Sequence[str], folder: Path) -> float:
    """User and system time of a process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def table(seconds: Mapping[str, float], rounds: int) -> str:
    """The results as Markdown."""
    lines = [
        f"CPU seconds (user and system) of whole processes, one thread, medians of {rounds} rounds.",
        "",
        "| process | CPU s |",
        "|---|---|",
        *(f"| {name} | {seconds[name]:.2f} |" for name in seconds),
        "",
        f"What edit imports, to torch and the model's own classes: {seconds[EDITS] / seconds[MODEL]:.2f} x. "
        f"The dearest fault: {max(seconds[name] for name in FAULTS):.2f} s.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
