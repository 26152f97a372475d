"""Every figure that only a GPU can give: an edit's time and memory, throughput, sweeps, null-text, compiling.

    python experiments/gpu/measure.py [--device cuda] [--minutes 9]

Published layouts with random weights (Stable Diffusion 1.5, SDXL, Stable Diffusion 3 medium, FLUX.1 [dev],
DeepFloyd IF-I-XL), in bfloat16 on a GPU. Each figure is written to results.json as soon as it is there, and
a run that was stopped goes on where it was; results.md is the table of it. Where two things are compared,
times are ratios within one round.
"""

import argparse
import dataclasses
import functools
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from joint_layouts import JOINT_LAYOUTS, TINY_JOINT, JointLayout, build_joint
from layouts import LAYOUTS, TINY, Built, Layout, build
from pixel_layouts import PIXEL_LAYOUTS, TINY_PIXEL, PixelLayout, build_pixel
from tables import write_tables
from torch.utils.flop_counter import FlopCounterMode
from ways import SOURCE, SWAPPED, edit_ways

import p2p_bench as p2p
from p2p_bench.editing.request import EditRequest, Target
from p2p_bench.editing.run import run_edits
from p2p_bench.inversion import NullTextInversion
from p2p_bench.inversion.base import read_sources
from p2p_bench.models.calls import NetworkCall
from p2p_bench.models.compiled import CompiledNetwork

HERE = Path(__file__).resolve().parent
TAUS = tuple(tenth / 10 for tenth in range(11))
Figures = dict[str, Any]
AnyLayout = Layout | JointLayout | PixelLayout


@dataclass(frozen=True)
class Plan:
    """How much is done.

    Attributes:
        device: Where.
        dtype: In which number format.
        steps: Of a run.
        rounds: Of a comparison.
        batches: Edits at once.
        images: Of the batch that null-text inverts.
        null_steps: Of null-text inversion.
        matmul: Side of the square matrices of the matmul rate.
        layouts: What is measured.
        compiler: What compiles the network, see `torch.compile`.
    """

    device: str
    dtype: torch.dtype = torch.bfloat16
    steps: int = 20
    rounds: int = 5
    batches: tuple[int, ...] = (1, 2, 4, 8, 16)
    images: int = 8
    null_steps: int = 50
    matmul: int = 8192
    layouts: Mapping[str, AnyLayout] = field(
        default_factory=lambda: {**LAYOUTS, **JOINT_LAYOUTS, **PIXEL_LAYOUTS}
    )
    compiler: str = "inductor"


def tiny_plan() -> Plan:
    """A plan for a CPU and a test: nothing it measures means anything."""
    return Plan("cpu", torch.float32, 2, 1, (1, 2), 2, 2, 64, {**TINY, **TINY_JOINT, **TINY_PIXEL}, "eager")


def main() -> None:
    """Measures what is missing, and writes the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--only", help="one figure, such as 'sd15 edit'")
    parser.add_argument("--steps", type=int, default=20, help="of the runs that are timed")
    parser.add_argument("--rounds", type=int, default=5, help="of a comparison")
    parser.add_argument("--tiny", action="store_true", help="tiny layouts, for a test on a CPU")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of results.json and results.md")
    arguments = parser.parse_args()
    dtype = torch.bfloat16 if arguments.device.startswith("cuda") else torch.float32
    plan = Plan(arguments.device, dtype, arguments.steps, arguments.rounds)
    deadline = time.monotonic() + 60 * arguments.minutes
    run(tiny_plan() if arguments.tiny else plan, arguments.out, deadline, arguments.only)


def run(plan: Plan, out: Path, deadline: float, only: str | None = None) -> Figures:
    """Measures what `out` does not hold yet for this device, until the deadline.

    Args:
        plan: How much is done.
        out: Folder of the results.
        deadline: No figure is begun after this time of `time.monotonic`.
        only: Name of the one figure that is wanted.
    """
    file, card = out / "results.json", card_name(plan.device)
    known: Figures = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    figures = known.setdefault(card, {"torch": torch.__version__, "dtype": str(plan.dtype)})
    for name, measure in jobs(plan).items():
        if name in figures or (only is not None and name != only):
            continue
        if time.monotonic() > deadline:
            print(f"out of time before {name}; run again to go on")
            break
        started = time.monotonic()
        figures[name] = measure()
        print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)
        file.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    (out / "results.md").write_text(write_tables(known), encoding="utf-8")
    return figures


def card_name(device: str) -> str:
    """What the figures belong to."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"


def jobs(plan: Plan) -> dict[str, Callable[[], Figures]]:
    """What there is to measure, in the order of worth. A layout is built once, and forgotten for the next."""

    @functools.lru_cache(maxsize=1)
    def built(name: str) -> Built:
        return build_any(name, plan.layouts[name], plan.device, plan.dtype)

    found: dict[str, Callable[[], Figures]] = {"matmul": lambda: matmul_rate(plan)}
    for name, layout in plan.layouts.items():
        distilled = isinstance(layout, JointLayout) and layout.kind == "flux"  # has no empty prompt to train
        null_text = [] if distilled else [("null-text", null_text_cost)]
        for kind, measure in (
            ("edit", edit_cost), ("throughput", throughput), ("sweep", sweep_cost), *null_text,
            ("compile", compile_cost),
        ):  # fmt: skip
            found[f"{name} {kind}"] = functools.partial(_measured, measure, plan, built, name)
    return found


def _measured(
    measure: Callable[[Plan, Built], Figures], plan: Plan, built: Callable[[str], Built], name: str
) -> Figures:
    return measure(plan, built(name))


def build_any(name: str, layout: AnyLayout, device: str, dtype: torch.dtype) -> Built:
    """Makes random weights in a layout of any kind of network."""
    if isinstance(layout, PixelLayout):
        return build_pixel(name, layout, device, dtype)
    if isinstance(layout, JointLayout):
        return build_joint(name, layout, device, dtype)
    return build(name, layout, device, dtype)


def matmul_rate(plan: Plan) -> Figures:
    """FLOP a second of a large square product."""
    side = plan.matmul
    left, right = (torch.randn(side, side, device=plan.device, dtype=plan.dtype) for _ in range(2))
    seconds = min(timed(plan, lambda: left @ right) for _ in range(10))
    return {"side": side, "flops": 2 * side**3 / seconds}


def edit_cost(plan: Plan, built: Built) -> Figures:
    """Seconds and peak memory of source and one target, against the pipeline's own sampling."""
    ways = edit_ways(built, plan.steps)
    for way in ways.values():
        way()  # warm up
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(plan.rounds):
        for name, way in ways.items():
            seconds[name].append(timed(plan, way))
    return {
        "steps": plan.steps,
        "seconds": seconds,
        "bytes": {name: peak(plan, way) for name, way in ways.items()},
    }


def throughput(plan: Plan, built: Built) -> Figures:
    """Edits a second by the number of edits at once, and the network's FLOP a second."""
    model = built.model
    flops = row_flops(built)
    passes = 2 if model.spec.guided_by == "passes" else 1
    found = {}
    for count in plan.batches:
        requests = [_request(SWAPPED, [0.8], seed) for seed in range(count)]
        rows = 2 * passes * count
        work = functools.partial(
            run_edits, model, requests, steps=plan.steps, guidance=model.spec.guidance, max_rows=rows
        )
        timed(plan, work)
        seconds = timed(plan, work)
        found[str(count)] = {"edits": count / seconds, "flops": flops * rows * plan.steps / seconds}
    return {"steps": plan.steps, "row_flops": flops, "batches": found}


def row_flops(built: Built) -> int:
    """FLOP of one row through the network, attention included, counted on its own pass."""
    model = built.model
    level = model.ladder(10)[0]
    shape = (1, model.spec.latent_channels, *model.spec.latent_size)
    latents = torch.zeros(shape, device=model.device, dtype=model.state_dtype)
    with FlopCounterMode(display=False) as counter:
        model.predict(latents, level, model.encode([model.tokenize(SOURCE)]))
    return counter.get_total_flops()


def sweep_cost(plan: Plan, built: Built) -> Figures:
    """Seconds and UNet rows of eleven taus in one request, and one by one."""
    model = built.model

    def sweep(requests: list[EditRequest]) -> Callable[[], int]:
        settings: Figures = {"steps": plan.steps, "guidance": model.spec.guidance}
        return lambda: sum(result.unet_rows for result in run_edits(model, requests, **settings))

    ways = {
        "one request": [sweep([_request(SWAPPED, TAUS, 7)])],
        "one by one": [sweep([_request(SWAPPED, [tau], 7)]) for tau in TAUS],
    }
    found: Figures = {"steps": plan.steps}
    for name, works in ways.items():
        rows = sum(work() for work in works)
        found[name] = {"rows": rows, "seconds": sum(timed(plan, work) for work in works)}
    return found


def null_text_cost(plan: Plan, built: Built) -> Figures:
    """Seconds an image of null-text inversion with every update taken, alone and in a batch."""
    model = built.model
    method = NullTextInversion(
        guidance=model.spec.guidance, learning_rate=1e-2, tolerance=0.0, gate=1e9,
        batch_size=plan.images,
    )  # fmt: skip
    images = torch.rand(plan.images, 3, *model.spec.image_size, generator=torch.Generator().manual_seed(3))
    found: Figures = {"steps": plan.null_steps, "inner_steps": method.inner_steps}
    for name, count in (("alone", 1), ("batch", plan.images)):
        sources = read_sources(model, images[:count], [SOURCE] * count)
        seconds = timed(plan, functools.partial(method.invert, model, sources, plan.null_steps))
        found[name] = {"images": count, "seconds": seconds}
    return found


def compile_cost(plan: Plan, built: Built) -> Figures:
    """Seconds of source and one target, and four, with the network compiled and without; and of compiling."""
    model = built.model
    compiled = dataclasses.replace(
        model, call=NetworkCall(model.network, CompiledNetwork(model.network, plan.compiler))
    )

    def edit(one: p2p.DiffusionModel, count: int) -> Callable[[], object]:
        settings: Figures = {"seed": 7, "steps": plan.steps, "record": False}
        controller = p2p.Replace(cross=1.0, self_attn=0.4)
        return lambda: p2p.edit(one, SOURCE, [SWAPPED] * count, controller, **settings)

    found: Figures = {"steps": plan.steps, "first": timed(plan, edit(compiled, 1)), "targets": {}}
    for count in (1, 4):
        ways = {"as it is": edit(model, count), "compiled": edit(compiled, count)}
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for place in range(1 + plan.rounds):
            for name, way in ways.items():
                taken = timed(plan, way)
                if place:  # the first is to warm up
                    seconds[name].append(taken)
        found["targets"][str(count)] = seconds
    return found


def _request(target: str, taus: Any, seed: int) -> EditRequest:
    """A source and one target for each tau."""
    targets = tuple(Target(target, p2p.Replace(cross=tau, self_attn=0.4 * tau)) for tau in taus)
    return EditRequest(f"edit {seed}", SOURCE, targets, seed=seed)


def timed(plan: Plan, work: Callable[[], object]) -> float:
    """Seconds until the device has done it."""
    settle(plan)
    started = time.perf_counter()
    work()
    settle(plan)
    return time.perf_counter() - started


def peak(plan: Plan, work: Callable[[], object]) -> int | None:
    """Peak of the device's memory above what is held already, in bytes; None on a CPU."""
    if not plan.device.startswith("cuda"):
        return None
    settle(plan)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    settle(plan)
    return torch.cuda.max_memory_allocated() - before


def settle(plan: Plan) -> None:
    """Waits for the device."""
    if plan.device.startswith("cuda"):
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
