"""What goes with what: every family of models with every inversion, sampler and controller.

    python experiments/matrix/measure.py [--table]

Runs each combination on the small random checkpoints of the tests, all controllers as targets of one request,
and writes results.md beside this file and the table between the marks of the project's README. `--table`
writes the latter from what the methods refuse, without running anything.
"""

import argparse
import functools
import importlib.util
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import p2p_bench as p2p
from p2p_bench.app.build import build, chosen_options, without_hydra
from p2p_bench.app.compose import compose, group_options
from p2p_bench.bench.task import Task
from p2p_bench.editing.request import EditRequest, Target
from p2p_bench.editing.run import run_edits
from p2p_bench.inversion.base import not_sampled, unserved

HERE = Path(__file__).resolve().parent
README = HERE.parent.parent / "README.md"
MARKS = "<!-- matrix: python experiments/matrix/measure.py -->", "<!-- end of matrix -->"
STEPS = 4
SOURCE, TARGET = "a red circle on grass", "a blue circle on grass"


def main() -> None:
    """Runs what is asked for, and writes the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", action="store_true", help="run nothing")
    arguments = parser.parse_args()
    add_tests()
    matrix = read_matrix()
    if not arguments.table:
        (HERE / "results.md").write_text(tried(matrix), encoding="utf-8")
    README.write_text(with_table(README.read_text(encoding="utf-8"), matrix), encoding="utf-8")


@dataclass(frozen=True)
class Matrix:
    """What goes with what.

    Attributes:
        families: Checkpoint of each family, by the name in the table.
        inversions: By option.
        samplers: By option.
        controllers: By option.
        holes: Why a combination does not go, by family, inversion and sampler.
    """

    families: Mapping[str, Any]
    inversions: Mapping[str, Any]
    samplers: Mapping[str, Any]
    controllers: Mapping[str, p2p.Controller]
    holes: dict[tuple[str, str, str], str] = field(default_factory=dict)


def read_matrix() -> Matrix:
    """The options of today, and what each combination is refused for, without any weights."""
    from tests.models.border import controller
    from tests.models.families import FAMILIES

    matrix = Matrix(
        families=FAMILIES,
        inversions={name: task(f"inversion={name}").inversion for name in group_options("inversion")},
        samplers={name: task(f"sampler={name}").sampler for name in group_options("sampler")},
        controllers={name: controller(name) for name in group_options("controller")},
    )
    for family, checkpoint in FAMILIES.items():
        spec = checkpoint().spec()
        for inversion_name, inversion in matrix.inversions.items():
            for sampler_name, sampler in matrix.samplers.items():
                why = refusal(functools.partial(sampler.steps_on, spec))
                why = why or unserved(inversion, spec) or not_sampled(inversion, sampler.stepper())
                if why is not None:
                    matrix.holes[family, inversion_name, sampler_name] = reason(str(why))
    return matrix


def refusal(check: Callable[[], object]) -> p2p.P2PError | None:
    """What a check says against something."""
    try:
        check()
    except p2p.P2PError as error:
        return error
    return None


def reason(text: str) -> str:
    """A refusal without names and without what is asked of the user."""
    text = re.sub(r"\b(?:DDIM|DPMSolver|Consistency|Heun|Midpoint)\(.*?\)", "the sampler", text)
    text = re.sub(
        r"\w+Inversion|^inversion: \w+",
        "the method",
        re.sub(r"model '\w+'( of family '\w+')?", "the model", text),
    )
    text = re.sub(r"sampler.eta=\d", "noise from the sampler", text)
    return re.split("; ", text.removeprefix("inversion: ").removeprefix("sampler: "))[0]


def task(*overrides: str) -> Task:
    """What a command line makes."""
    config = compose([*overrides, "dataset.limit=1", "logger=none"], keep_hydra=True)
    return build(without_hydra(config), chosen_options(config.hydra)).task


def tried(matrix: Matrix) -> str:
    """Runs every combination that is not refused; a table of each family."""
    lines = [
        f"Every cell is one request on a small checkpoint with random weights: a real image, {STEPS} steps, "
        f"{len(matrix.controllers)} controllers ({', '.join(matrix.controllers)}) as its targets.",
        "",
    ]
    for family, checkpoint in matrix.families.items():
        model = checkpoint().load(dtype=torch.float64)
        wanting = {name: why for name in matrix.controllers if (why := unsuited(matrix, model, name))}
        lines += [f"## {family}", "", *(f"Without `{name}`: {why}.  " for name, why in wanting.items())]
        lines += ["", f"| inversion | {' | '.join(matrix.samplers)} |"]
        lines.append("|---" * (len(matrix.samplers) + 1) + "|")
        for inversion in matrix.inversions:
            cells = [cell(matrix, model, family, inversion, sampler, wanting) for sampler in matrix.samplers]
            lines.append(f"| {inversion} | {' | '.join(cells)} |")
            print(family, inversion, *cells, flush=True)
        lines.append("")
    return "\n".join(lines)


def unsuited(matrix: Matrix, model: p2p.DiffusionModel, name: str) -> str:
    """Why a controller is refused on a model, whatever the inversion and the sampler; "" where it is not."""
    request = EditRequest("x", SOURCE, (Target(TARGET, matrix.controllers[name]),))
    error = run_edits(model, [request], steps=STEPS)[0].errors[1]
    return "" if error is None else reason(str(error).removeprefix("controller: ")).removeprefix(f"{name} ")


def cell(
    matrix: Matrix,
    model: p2p.DiffusionModel,
    family: str,
    inversion: str,
    sampler: str,
    wanting: Mapping[str, str],
) -> str:
    """A "-" for a hole; "yes" where all controllers edited that the model can serve; else what went wrong."""
    if (family, inversion, sampler) in matrix.holes:
        return "-"
    image = torch.rand(3, *model.spec.image_size, generator=torch.Generator().manual_seed(2))
    suited = {name: one for name, one in matrix.controllers.items() if name not in wanting}
    targets = tuple(Target(TARGET, controller) for controller in suited.values())
    request = EditRequest("x", SOURCE, targets, image=image, inversion=fitted(matrix, model, inversion))
    chosen = matrix.samplers[sampler]
    try:
        (result,) = run_edits(model, [request], steps=STEPS, stepper=chosen.stepper(), spacing=chosen.spacing)
    except p2p.P2PError as error:
        return f"failed: {error}"
    wrong = [
        name
        for name, latents in zip(suited, result.latents[1:], strict=True)
        if not bool(latents.isfinite().all()) or float((latents - result.latents[0]).abs().max()) < 1e-3
    ]
    return f"failed: {', '.join(wrong)}" if wrong else "yes"


def fitted(matrix: Matrix, model: p2p.DiffusionModel, option: str) -> Any:
    """The inversion of an option, with an image encoder as wide as the model's text where it reads one."""
    from tests.models.tiny_clip import encoder

    given = encoder(option, model.spec)
    return task(f"inversion={option}", *given).inversion if given else matrix.inversions[option]


def with_table(text: str, matrix: Matrix) -> str:
    """A README with today's table between the marks."""
    before, rest = text.split(MARKS[0])
    _, after = rest.split(MARKS[1])
    return f"{before}{MARKS[0]}\n{table(matrix)}\n{MARKS[1]}{after}"


def table(matrix: Matrix) -> str:
    """Inversions against families; a cell names the samplers that go, and the reasons of the others."""
    reasons: dict[str, int] = {}
    alike = _alike(matrix)
    names = [", ".join(families) for families in alike]
    lines = [f"| inversion | {' | '.join(names)} |", "|---" * (len(alike) + 1) + "|"]
    for inversion in matrix.inversions:
        cells = []
        for family, *_ in alike:
            holes = {name: matrix.holes.get((family, inversion, name)) for name in matrix.samplers}
            marks = sorted({reasons.setdefault(why, len(reasons) + 1) for why in holes.values() if why})
            going = [name for name, why in holes.items() if why is None]
            every = len(going) == len(holes)
            said = "all" if every else ", ".join(f"`{name}`" for name in going) or "none"
            cells.append(said + "".join(f" [{mark}]" for mark in marks))
        lines.append(f"| `{inversion}` | {' | '.join(cells)} |")
    lines += ["", *(f"[{number}] {why}.  " for why, number in reasons.items())]
    return "\n".join(lines)


def _alike(matrix: Matrix) -> list[list[str]]:
    """Families that have the same holes, together."""
    groups: dict[str, list[str]] = {}
    for family in matrix.families:
        holes = sorted((*key[1:], why) for key, why in matrix.holes.items() if key[0] == family)
        groups.setdefault(str(holes), []).append(family)
    return list(groups.values())


def add_tests() -> None:
    """Makes the package `tests` importable without putting the checkout on `sys.path`."""
    if "tests" in sys.modules:
        return
    folder = HERE.parent.parent / "tests"
    spec = importlib.util.spec_from_file_location(
        "tests", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None, "a path to an existing file always has a spec"
    sys.modules["tests"] = importlib.util.module_from_spec(spec)


if __name__ == "__main__":
    main()
