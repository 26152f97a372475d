"""What each verb imports: a module that a command has no use for costs every one of its starts seconds.

Modules are counted and not seconds, which depend on the machine; `experiments/startup` has those.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from p2p_bench.app.instantiate import _imported_signature
from p2p_bench.app.signatures import source_signature
from tests.report.fake_run import fake_run
from tests.test_documented_commands import first_of

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("torch", "diffusers", "transformers", "lightning", "torchmetrics", "scipy", "numpy", "open_clip")
HEAVY += ("lpips", "torchvision", "pyarrow", "wandb", "tensorboard")
EDIT = ("--source", "a red circle on grass", "--target", "a blue circle on grass")
LIGHT = {
    "help": (["--help"], 0),
    "version": (["--version"], 0),
    "no verb": (["rn"], 2),
    "help of run": (["run", "--help"], 0),
    "configuration": (["--cfg", "job"], 0),
    "unknown key": (["tau.cros=0.6"], 2),
    "unknown key of a component": (["controller.crss=0.6"], 2),
    "argument of the class, not of its YAML": (
        ["--cfg", "job", "controller=replace", "controller.align=true"],
        0,
    ),
    "unknown option": (["controller=replce"], 2),
    "value out of range": (["tau.cross=1.6"], 2),
    "value of the wrong type": (["dataset.limit=many"], 2),
    "value that is missing": (["controller=reweight"], 2),
    "a choice of a sweep": (["-m", "tau.cross=0.2,1.7"], 2),
    "no steps": (["sampler.steps=0"], 2),
    "more steps than the model was trained on": (["sampler.steps=1001"], 2),
    "steps that leave noise out": (["sampler.steps=350"], 2),
    "learning rate": (["inversion=null_text", "inversion.learning_rate=-1"], 2),
    "no pairs": (["dataset.limit=0"], 2),
    "unknown categories": (["dataset=world_real", "dataset.categories=[swap_color]"], 2),
    "unknown repair": (["run.repair=word"], 2),
    "unknown network of a metric": (["metrics.lpips.net=alx"], 2),
    "a controller's own tau": (["controller=pie", "controller.cross=1.5"], 2),
    "a controller's words": (["controller=inject_words", "controller.words=[]"], 2),
    "a controller's layers": (["controller=masactrl", "controller.layers=1.5"], 2),
    "a model's number format": (["model.dtype=int8"], 2),
    "no such model": (["model=local", "model.path=/nowhere"], 3),
    "faults of several parts": (["tau.cross=1.6", "dataset.limit=0", "sampler.eta=2", "seed=-1"], 2),
    "a fault beside good values": (["tau.cross=1.6", "sampler.steps=9", "trainer.accelerator=cpu"], 2),
    "edit without steps": (["edit", *EDIT, "sampler.steps=0"], 2),
    "edit without a target": (["edit", "--source", "a"], 2),
    "generate with a fault": (["generate", "--prompt", "a", "sampler.steps=0"], 2),
    "generate an edit": (["generate", "--prompt", "a", "tau.cross=0.3"], 2),
    "studio with a fault": (["studio", "sampler.steps=0"], 2),
    "studio on no port": (["studio", "--port", "70000"], 2),
    "edit with a fault": (["edit", *EDIT, "tau.cross=3"], 2),
    "resume nothing": (["resume", "nowhere"], 2),
    "report without a folder": (["report"], 2),
    "dashboard without a folder": (["dashboard"], 2),
    "cache with a fault": (["cache", "lst"], 2),
    "doctor with a fault": (["doctor", "x"], 2),
    "training with a fault": (["train-world", "world.x=1"], 2),
}
"""Arguments that are answered without any heavy module, and their exit codes."""
FILES = {
    "no such pairs": (["dataset=jsonl", "dataset.path=/nowhere.jsonl"], 2),
    "no such folder of images": (["dataset=jsonl", "dataset.path=pairs.jsonl", "dataset.root=/nowhere"], 2),
    "edit of no such image": (["edit", *EDIT, "--image", "nowhere.png"], 2),
    "edit of an image, from noise": (["edit", *EDIT, "--image", "nowhere.png", "inversion=none"], 2),
    "edit into no such folder": (["edit", *EDIT, "--out", "/dev/null/x"], 2),
}
"""The same of those that look into files, which NumPy may be needed for."""

_PROBE = """
import json, sys
sys.modules.update({name: None for name in json.loads(sys.argv[2])})
from p2p_bench.app.main import run_verb
for name, (arguments, code) in json.loads(sys.argv[1]).items():
    assert run_verb(arguments) == code, name
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules if sys.modules[name] is not None})))
"""


def imported(commands: dict[str, tuple[Sequence[str], int]], forbidden: Sequence[str], cwd: Path) -> set[str]:
    """Top-level modules after these commands, in a process in which the forbidden ones cannot be imported."""
    words = [sys.executable, "-c", _PROBE, json.dumps(commands), json.dumps(forbidden)]
    ended = subprocess.run(words, cwd=cwd, capture_output=True, text=True, timeout=600, check=False)
    assert ended.returncode == 0, ended.stderr
    return set(json.loads(ended.stdout.splitlines()[-1]))


def test_what_needs_no_model_is_answered_without_torch(tmp_path: Path) -> None:
    # A module that cannot be imported says which command wanted it.
    assert not imported(LIGHT, HEAVY, tmp_path) & set(HEAVY)


def test_files_are_looked_for_without_torch(tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text("{}")
    forbidden = [name for name in HEAVY if name != "numpy"]
    assert not imported(FILES, forbidden, tmp_path) & set(forbidden)


def test_finished_runs_are_read_without_torch(tmp_path: Path) -> None:
    for name in ("first", "second"):
        fake_run(tmp_path / name, samples=2, pictures=False)
    commands = {
        "page over a run": (["report", "first"], 0),
        "page over two runs": (["report", "first", "second", "--out", "both"], 0),
    }
    # Nothing is forbidden: SciPy looks for torch among the modules and takes even a refused one for torch.
    assert imported(commands, (), tmp_path) & set(HEAVY) <= {"numpy", "scipy", "pyarrow"}


def test_edit_imports_what_the_model_is_made_of_and_no_more(tmp_path: Path) -> None:
    """In the edit that the pages document first."""
    forbidden = ("lightning", "torchmetrics", "wandb", "open_clip", "lpips", "tensorboard")
    _, *typed = first_of("edit").words
    arguments = [*typed, "sampler.steps=1", "--out", str(tmp_path / "edit"), "run.cache=false"]
    imported({"edit": (arguments, 0)}, forbidden, tmp_path)
    assert (tmp_path / "edit" / "target_1.png").is_file()


def test_a_folder_named_datasets_is_not_taken_for_a_package(tmp_path: Path) -> None:
    (tmp_path / "datasets").mkdir()
    (tmp_path / "random.py").write_text("raise RuntimeError('not the module that was meant')")
    words = [sys.executable, "-m", "p2p_bench", "--cfg", "job", "--package", "tau"]
    ended = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)
    assert ended.returncode == 0, ended.stderr


def targets() -> list[str]:
    """Every `_target_` of the configuration."""
    lines = [line for path in (ROOT / "conf").rglob("*.yaml") for line in path.read_text().splitlines()]
    return sorted(
        {line.split("_target_:")[1].strip() for line in lines if line.strip().startswith("_target_:")}
    )


@pytest.mark.parametrize("target", targets())
def test_signatures_read_from_source_are_those_of_the_import(target: str) -> None:
    real, read = _imported_signature(target), source_signature(target)
    assert read is not None
    needed = {name: one.default is one.empty for name, one in real.parameters.items()}
    assert {name: one.default is one.empty for name, one in read.parameters.items()} == needed
    for name, one in read.parameters.items():
        if target.startswith("p2p_bench") and "Any" not in str(one.annotation):
            assert one.annotation == real.parameters[name].annotation, name


@pytest.mark.parametrize(
    "target", ["p2p_bench.nowhere.Thing", "p2p_bench.cache.Nothing", "nowhere", "json.loads"]
)
def test_what_the_source_does_not_tell_is_left_to_the_import(target: str) -> None:
    read = source_signature(target)
    assert read is None or target == "json.loads"
