"""Every documented command starts in a process of its own, as a new user would start it.

The commands are read from the pages (`tests.documented`). The default run starts all that need no model, one
command of `run`, and in `tests/test_imports.py` one of `edit`; the others are marked slow. What cannot run
says why, and a command of a kind that nobody has thought of fails.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from PIL import Image

from p2p_bench.app.compose import checked_overrides
from p2p_bench.app.flags import asked
from p2p_bench.app.main import VERBS
from p2p_bench.errors import P2PError
from tests.documented import ROOT, Documented, commands_of, documented_commands
from tests.models.tiny import make_tiny_checkpoint
from tests.report.fake_run import fake_run

FLAGS: Mapping[str, tuple[int, str]] = {
    "--help": (0, "usage: p2p-bench"),
    "--version": (0, "p2p_bench "),
    "run --version": (0, "p2p_bench "),
    "run --help": (0, "== Groups (GROUP=OPTION) =="),
    "--hydra-help": (0, "Hydra"),
    "--cfg job": (0, "cross: 0.8"),
    "tau.cross=0.3 --cfg job --package tau seed=1": (0, "cross: 0.3"),
    "--cfg all --resolve": (0, "p2p_bench"),
    "controller=replace controller.align=true --cfg job": (0, "align: true"),
    "--info": (0, "Installed Hydra Plugins"),
    "--info defaults": (0, "root_schema"),
    "--shell-completion install=bash": (0, "complete -o nospace"),
    "-sc uninstall=zsh": (0, "unset"),
    "-sc query=bash": (0, "controller=refine"),
    "-m --cfg job": (2, "--cfg and -m do not go together"),
    "--shell-completion": (2, "expected install=SHELL"),
    "--cfg job --package nowhere": (2, "not found"),
    "--resolve": (2, "--resolve goes with"),
    "--config-name other": (2, "experiment=NAME"),
    "--experimental-rerun x.pickle": (2, "resume DIR"),
    "--config-dir nowhere": (2, "there is no folder"),
    "--unknown": (2, "unrecognized arguments"),
    **{f"{verb} --help": (0, verb) for verb in VERBS if verb != "run"},
}
"""Arguments, and what they leave: exit code, and words of the output."""

SOON = {
    "run": ("dataset.limit=1", "sampler.steps=2", "run.images=1", "logger=csv"),
    "edit": ("sampler.steps=2",),
    "generate": ("sampler.steps=2",),
    "train-world": ("world.stages=[tokenizer]", "world.work_dir=work", "world.weights_dir=weights"),
}
"""What makes a verb's commands end soon, or keeps them from writing where the project's own files lie."""

SCRIPTS: Mapping[str, tuple[str, ...]] = {
    "experiments/control/measure.py": ("--per-kind", "1", "--scenes", "1", "--work", "w", "--out", "o"),
    "experiments/gpu/measure.py": ("--tiny", "--only", "matmul", "--out", "o"),
    "experiments/inversion/measure.py": ("--images", "1", "--steps", "2", "--out", "o"),
    "experiments/inversion_speed/measure.py": ("--rounds", "2"),
    "experiments/speed/measure.py": ("--rounds", "1", "--steps", "2"),
    "experiments/startup/measure.py": ("--rounds", "1"),
    "experiments/sweep_speed/measure.py": ("--rounds", "1", "--steps", "2", "--samples", "10"),
    "experiments/world/measure.py": ("--samples", "8", "--steps", "2", "--out", "o"),
}
"""What makes the experiments' scripts end soon; of others it is tried whether they start (`--help`)."""

LEFT_OUT = {
    "studio": "serves a page until it is interrupted; tests/app/test_studio.py drives it",
    "experiment=pie_table_masactrl": "likewise",
    "experiment=pie_table_pnp": "needs PIE-Bench and Stable Diffusion 1.5; likewise",
    "experiment=pie_table_p2p_zero": "needs PIE-Bench and Stable Diffusion 1.4; likewise",
    "experiment=pie_table": "needs PIE-Bench and Stable Diffusion 1.4; tests/app/test_pie_table.py stands in",
    "experiment=pie_table_instruct": "needs PIE-Bench and InstructPix2Pix; likewise",
    "--instruction": "needs InstructPix2Pix; tests/app/test_instruct.py stands in",
    "model=instruct_pix2pix": "likewise",
    "FOLDER": "images that another tool made; tests/app/test_score.py makes some",
    "RUN": "a finished run with pictures; tests/app/test_score_runs.py makes one",
    "controller=mine": "the page's own example of what a reader writes",
    "outputs/search/reference": "needs a finished search, which takes an hour",
}
"""Words of commands that cannot be tried, and why."""

LAUNCHERS = {"torchrun": "p2p_bench", "srun": "p2p-bench"}
"""What starts several processes at once, and what of ours it starts; see `tests/app/test_several.py`."""

COMMANDS = documented_commands()
SECONDS = 900


def kind_of(words: Sequence[str]) -> str:
    """The verb of a command of ours; "launcher", "script", "code" or "make"; "" for one of no known kind."""
    program, *rest = words
    if program == "p2p-bench":
        first = rest[0] if rest else "run"
        return first if first in VERBS else "run" if "=" in first or first.startswith("-") else ""
    if program in LAUNCHERS and LAUNCHERS[program] in rest:
        return "launcher"
    if program == "python" and len(rest) > 1 and rest[0] == "-c":
        return "code"
    if program == "python" and rest and (ROOT / rest[0]).is_file():
        return "script"
    return "make" if program == "make" and rest else ""


def first_of(kind: str) -> Documented:
    return next(one for one in COMMANDS if kind_of(one.words) == kind)


def reason_not_to_run(words: Sequence[str]) -> str:
    """Why a command cannot be tried; "" if it can."""
    return next((reason for word, reason in LEFT_OUT.items() if word in words), "")


def skip_without_extra(message: str) -> None:
    """Skips what the program itself says needs a package that is installed apart."""
    if "comes with the extra" in message:
        pytest.skip(message.strip())


@pytest.fixture(scope="session")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the pages' placeholders are things, and their scripts copies."""
    folder = tmp_path_factory.mktemp("desk")
    shutil.copytree(ROOT / "experiments", folder / "experiments")
    (folder / "datasets" / "world_pairs").mkdir(parents=True)
    Image.new("RGB", (64, 64), "red").save(folder / "photo.png")
    (folder / "pairs.jsonl").write_text(
        '{"source_prompt": "a red circle on grass", "target_prompt": "a blue circle on grass"}\n'
    )
    (folder / "tests").symlink_to(ROOT / "tests")  # a script compares with a function of the tests
    make_tiny_checkpoint(folder / "checkpoint")
    for name in ("reference", "other"):
        fake_run(folder / "outputs" / "demo" / name)
    return folder


def placed(words: Sequence[str], desk: Path) -> list[str]:
    """A command with its placeholders filled in, and its pattern of folders expanded."""
    things = {
        "DIR": str(desk / "outputs" / "demo" / "reference"),
        "S": "a red circle on grass",
        "T": "a blue circle on grass",
        "P": "project",
        "model.path=/models/stable-diffusion-v1-4": f"model.path={desk / 'checkpoint'}",
        "dataset.path=/path/to/pairs.jsonl": "dataset.path=pairs.jsonl",
        "dataset.path=sources/pairs.jsonl": "dataset.path=pairs.jsonl",
        "dataset.root=/path/to/images": "dataset.root=.",
    }
    filled: list[str] = []
    for word in words:
        filled += sorted(map(str, desk.glob(word))) if word.endswith("*") else [things.get(word, word)]
    # What stands for the checkpoint has no maps as small as a real one's.
    return [*filled, "model.record_fraction=0.5"] if "model=local" in words else filled


Start = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def start(desk: Path, tmp_path: Path) -> Start:
    """Starts a program in a process of its own, in the folder of placeholders."""

    def started(*words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        settings = {**os.environ, "P2P_BENCH_CACHE": str(tmp_path), "COLUMNS": "200", **environment}
        return subprocess.run(
            words, cwd=desk, env=settings, capture_output=True, text=True, timeout=SECONDS, check=False
        )

    return started


def command_line(words: Sequence[str], desk: Path) -> list[str]:
    """The command as it is started, with what makes it end soon."""
    kind, (program, *rest) = kind_of(words), placed(words, desk)
    if program == "p2p-bench":
        return [sys.executable, "-m", "p2p_bench", *rest, *SOON.get(kind, ())]
    if kind == "script":
        return [sys.executable, *rest, *SCRIPTS.get(words[1], ("--help",))]
    if kind == "make":  # `make` would set up an environment: it says what it would do
        return ["make", "-C", str(ROOT), "-n", *rest]
    return [sys.executable, *rest]


def test_the_pages_are_read() -> None:
    page = (
        "```sh\nmake demo   # it\np2p-bench edit --source 'a b' \\\n  --target c\n```\n"
        '```bash\npython -c "\nimport os\nprint(1)"\n```\n```python\np2p-bench = 3\n```\n'
        "text `p2p-bench cache list|verify` and `p2p_bench`\n\n    p2p-bench seed=1\n"
    )
    assert list(commands_of(page)) == [
        ("make", "demo"),
        ("p2p-bench", "edit", "--source", "a b", "--target", "c"),
        ("python", "-c", "\nimport os\nprint(1)"),
        ("p2p-bench", "seed=1"),
        ("p2p-bench", "cache", "list"),
        ("p2p-bench", "cache", "verify"),
    ]
    assert len(COMMANDS) >= 35


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_every_command_is_of_a_known_kind_and_its_settings_exist(command: Documented, desk: Path) -> None:
    kind = kind_of(command.words)
    assert kind, f"{command}: say in this test how such a command is run"
    if kind not in ("run", "launcher") or reason_not_to_run(command.words):
        return
    rest = [word for word in placed(command.words, desk)[1:] if word != "run"]
    if kind == "launcher":
        rest = rest[rest.index(LAUNCHERS[command.words[0]]) + 1 :]
    flags = asked(rest)
    try:
        checked_overrides(flags.overrides, flags.multirun)
    except P2PError as error:
        skip_without_extra(str(error))
        raise


@pytest.mark.parametrize("arguments", FLAGS)
def test_every_flag_starts_in_a_fresh_process(start: Start, arguments: str) -> None:
    code, said = FLAGS[arguments]
    ended = start(
        sys.executable, "-m", "p2p_bench", *arguments.split(), COMP_LINE="p2p-bench run controller=re"
    )
    assert ended.returncode == code, ended.stderr
    assert said in (ended.stdout if code == 0 else ended.stderr)
    assert "Traceback" not in ended.stderr
    assert "unexpected" not in ended.stderr


def run_command(command: Documented, start: Start, desk: Path) -> None:
    """Starts a command and holds it to its exit code."""
    if reason := reason_not_to_run(command.words):
        pytest.skip(reason)
    if kind_of(command.words) == "launcher":
        pytest.skip("several processes are started in tests/app/test_several.py")
    line = command_line(command.words, desk)
    if kind_of(command.words) in ("resume", "watch"):  # the placeholders have no settings to resume by
        line[-1] = str(desk / "outputs" / "short")
        start(sys.executable, "-m", "p2p_bench", "run", f"run.dir={line[-1]}", *SOON["run"])
    ended = start(*line)
    skip_without_extra(ended.stderr)
    if kind_of(command.words) == "dashboard" and "WANDB_API_KEY" not in os.environ:
        assert ended.returncode == 2
        assert "wandb login" in ended.stderr
    else:
        assert ended.returncode == 0, f"{command}\n{ended.stdout[-2000:]}\n{ended.stderr[-4000:]}"


QUICK = [one for one in COMMANDS if kind_of(one.words) in ("report", "cache", "make")]
DEAR = [one for one in COMMANDS if one not in QUICK and kind_of(one.words)]


@pytest.mark.parametrize("command", [*QUICK, first_of("run")], ids=str)
def test_a_documented_command_runs(command: Documented, start: Start, desk: Path) -> None:
    run_command(command, start, desk)


@pytest.mark.slow
@pytest.mark.parametrize("command", DEAR, ids=str)
def test_every_documented_command_runs(command: Documented, start: Start, desk: Path) -> None:
    run_command(command, start, desk)
