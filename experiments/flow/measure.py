"""Every inversion and editor of flow models, with and without control, on images whose exact edits are known.

    python experiments/flow/measure.py [--model world_flow] [--pairs 128] [--steps 10] [--only NAME ...]

Appends a line to rows.jsonl for every (method, control, image), a batch of images with every method before
the next, then writes results.json, results.md and the table between the marks of README.md beside this file.
A run started again does what is missing; lines of other weights, settings or another version of the
attributes' reader are left out. After each batch it says how long the rest will take. `--only` takes some
methods, and leaves the README alone; `--report` measures nothing; `--out` writes elsewhere.
"""

import argparse
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tables import COLUMNS, CONTROLS, report, summary

import p2p_bench as p2p
from p2p_bench.data.base import PairImages
from p2p_bench.data.world import WorldReal
from p2p_bench.hashing import digest
from p2p_bench.inversion.base import steps_guided, unserved
from p2p_bench.inversion.recall import settings_of
from p2p_bench.metrics.base import EditView
from p2p_bench.metrics.pixel import psnr
from p2p_bench.metrics.world import WorldAnswer, WorldAttributes
from p2p_bench.types import EditPair

HERE = Path(__file__).resolve().parent
FIRST_WORLD = HERE.parent / "inversion" / "rows.jsonl"
MARKS = "<!-- flow: python experiments/flow/measure.py -->", "<!-- end of flow -->"
BATCH = 8
PAIR_SEED = 77
"""That of `experiments/inversion`, whose rows of the same images stand beside these."""

JUDGE = WorldAttributes()
READER = max(column.version for column in JUDGE.columns)


@dataclass(frozen=True)
class Method:
    """A method as it is measured.

    Attributes:
        inversion: It.
        share: Its steps, by those of the first-order methods: all ask the network about as often.
        default: Whether it is measured unless `--only` says otherwise.
    """

    inversion: p2p.Inversion
    share: float = 1.0
    default: bool = True


def methods(guidance: float) -> dict[str, Method]:
    """The methods by name, for a model of that guidance scale.

    FlowEdit's published scales on Stable Diffusion 3, 3.5 and 13.5, stand to its 7 as here to the model's.
    """
    flowedit = p2p.FlowEdit(0.66, guidance * 3.5 / 7, guidance * 13.5 / 7)
    return {
        "ode": Method(p2p.FlowODEInversion()),
        "uni_inv": Method(p2p.UniInvInversion()),
        "fireflow": Method(p2p.FireFlowInversion()),
        "rf_solver": Method(p2p.RFSolverInversion(), 0.5),
        "rf_inversion": Method(p2p.RFInversion()),
        "direct": Method(p2p.DirectInversion()),
        "flowedit": Method(flowedit, 1.5),
        "uni_edit": Method(p2p.UniEdit(), 1.5),
        "ddim": Method(p2p.DDIMInversion(), default=False),
        "negative_prompt": Method(p2p.NegativePromptInversion(), default=False),
        "noising": Method(p2p.NoisingInversion(0.65), 1.5, default=False),
    }


@dataclass(frozen=True)
class Bench:
    """What is loaded once.

    Attributes:
        model: The model.
        pairs: All pairs.
        data: Where their pixels come from.
        steps: Number of steps of first-order methods.
        methods: What is measured.
        file: Where the rows go.
    """

    model: p2p.DiffusionModel
    pairs: Sequence[EditPair]
    data: WorldReal
    steps: int
    methods: Mapping[str, Method]
    file: Path

    def steps_of(self, name: str) -> int:
        """Number of steps of a method."""
        return max(2, round(self.steps * self.methods[name].share))

    def controllers(self, name: str) -> dict[str, p2p.Controller]:
        """No control; replacement or refinement, as the pair asks; the source's image queries and keys.

        Shares are those of the steps that the method takes, since those of a late start would be over before.
        """
        steps = self.steps_of(name)
        taken = self.methods[name].inversion.steps_taken(steps)

        def until(share: float) -> tuple[float, float]:
            # A hair more, so that a whole step is not lost to rounding.
            return 0.0, min(1.0, (steps - taken + math.ceil(share * taken) + 1e-6) / steps)

        made = p2p.NoControl(), p2p.ByEdit(until(0.8), until(0.4)), p2p.ImageQK(until(0.2))
        return dict(zip(CONTROLS, made, strict=True))

    def key(self, name: str) -> str:
        """What a method's rows are known by: weights, settings and reader."""
        controllers = tuple(self.controllers(name).values())
        settings = [settings_of(self.methods[name].inversion), settings_of(controllers)]
        spec, steps = self.model.spec, self.steps_of(name)
        known = [spec.checksum, spec.guidance, steps, READER, *settings]
        guided = steps_guided(spec, steps, None, self.methods[name].inversion)
        if guided != range(steps):
            known.append([guided.start, guided.stop])
        return digest(known)[:16]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures what is missing and writes the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="world_flow", help="a file in conf/model, or a directory")
    parser.add_argument("--pairs", type=int, default=128, help="number of images")
    parser.add_argument("--steps", type=int, default=10, help="of a first-order method")
    parser.add_argument("--only", nargs="+", help="methods")
    parser.add_argument("--report", action="store_true", help="measure nothing")
    parser.add_argument("--out", type=Path, default=HERE)
    given = parser.parse_args(arguments)
    model = p2p.load_model(given.model)
    data = WorldReal(count=given.pairs, seed=PAIR_SEED)
    chosen = chosen_methods(model, given.only)
    given.out.mkdir(parents=True, exist_ok=True)
    bench = Bench(model, data.pairs(), data, given.steps, chosen, given.out / "rows.jsonl")
    if not given.report:
        measure(bench)
    write(bench, given.out, readme=given.out == HERE and not given.only)


def chosen_methods(model: p2p.DiffusionModel, only: Sequence[str] | None) -> dict[str, Method]:
    """The methods that are asked for, in order; those that cannot serve the model are said and left out."""
    every = methods(model.spec.guidance)
    unknown = set(only or ()) - set(every)
    if unknown:
        raise SystemExit(f"--only: expected any of {', '.join(every)}, got {', '.join(sorted(unknown))}")
    asked = {name: one for name, one in every.items() if (name in only if only else one.default)}
    faults = {name: unserved(one.inversion, model.spec) for name, one in asked.items()}
    for name, fault in faults.items():
        if fault is not None:
            print(f"{name} is left out: {fault}")
    return {name: one for name, one in asked.items() if faults[name] is None}


def measure(bench: Bench) -> None:
    """Batches of images, every method that has rows missing of them."""
    _mend(bench.file)
    started, spent = time.process_time(), 0
    for start in range(0, len(bench.pairs), BATCH):
        places = range(start, min(start + BATCH, len(bench.pairs)))
        done = {(row["key"], row["control"], row["sample"]) for row in known_rows(bench)}
        waiting = [
            name
            for name in bench.methods
            if any(
                (bench.key(name), control, bench.pairs[place].id) not in done
                for control in CONTROLS
                for place in places
            )
        ]
        for name in waiting:
            rows = measured(bench, name, places)
            with bench.file.open("a", encoding="utf-8") as out:
                out.write("".join(json.dumps(row) + "\n" for row in rows))
        spent += len(places) if waiting else 0
        if spent:
            each = (time.process_time() - started) / spent
            left = each * (len(bench.pairs) - places.stop)
            print(f"{places.stop} images: {each:.2f} CPU s each, about {left / 60:.1f} min to go", flush=True)


def known_rows(bench: Bench) -> list[dict[str, Any]]:
    """The rows of these weights and settings, one per (method, control, image); the last line counts."""
    lines = _lines(bench.file)
    keys = {name: bench.key(name) for name in bench.methods}
    samples = {pair.id for pair in bench.pairs}
    rows = {}
    for row in map(json.loads, lines):
        if keys.get(row["method"]) == row["key"] and row["sample"] in samples:
            rows[row["method"], row["control"], row["sample"]] = row
    return list(rows.values())


def _lines(file: Path) -> list[str]:
    """Whole lines; a last one that was cut off when the process ended is none."""
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    return text[: text.rfind("\n") + 1].splitlines()


def _mend(file: Path) -> None:
    """Takes off a line that was cut off, so that the next begins on its own."""
    if file.exists():
        file.write_text("".join(f"{line}\n" for line in _lines(file)), encoding="utf-8")


def measured(bench: Bench, name: str, places: Sequence[int]) -> list[dict[str, Any]]:
    """The rows of a batch of images: all controls are targets of one request, with one source and start."""
    pairs = [bench.pairs[place] for place in places]
    loaded = [bench.data.load(pair, bench.model.spec.image_size) for pair in pairs]
    requests = [
        p2p.EditRequest(
            id=pair.id,
            source_prompt=pair.source_prompt,
            targets=tuple(
                p2p.Target(pair.target_prompts[0], one.for_pair(pair.word_weights))
                for one in bench.controllers(name).values()
            ),
            seed=place,
            image=images.image,
            inversion=bench.methods[name].inversion,
        )
        for place, pair, images in zip(places, pairs, loaded, strict=True)
    ]
    started = time.process_time()
    results = p2p.run_edits(bench.model, requests, steps=bench.steps_of(name))
    seconds = time.process_time() - started
    each = seconds / max(1, sum(result.unet_rows for result in results))
    about = {"method": name, "key": bench.key(name), "steps": bench.steps_of(name)}
    rows = []
    for place, control in enumerate(CONTROLS):
        scores = _scores(pairs, loaded, results, 1 + place)
        for pair, result, images, score in zip(pairs, results, loaded, scores, strict=True):
            cost = result.inversion_rows + result.source_rows + result.target_rows[place]
            error = result.errors[1 + place] or result.errors[0]
            known = {
                **dict.fromkeys(COLUMNS, math.nan),
                "recon_psnr": _psnr(result.images[0], result.vae_reconstruction),
                "vae_psnr": _psnr(result.vae_reconstruction, images.image),
                **score,
            }
            rows.append(
                {
                    **about,
                    "control": control,
                    "sample": pair.id,
                    "category": pair.category,
                    "error": None if error is None else str(error),
                    **{key: None if error or math.isnan(value) else value for key, value in known.items()},
                    "rows": cost,
                    "seconds": each * cost,
                }
            )
    return rows


def _scores(
    pairs: Sequence[EditPair],
    loaded: Sequence[PairImages],
    results: Sequence[p2p.EditResult],
    image: int,
) -> list[dict[str, float]]:
    """Against the exact answers, of one image of every result; nothing of an image with an error."""
    views = [
        EditView(
            images.image, result.images[image], pair.source_prompt, pair.target_prompts[0],
            mask=images.mask, answer=images.answer, scene=pair.scene, scene_edit=pair.scene_edit,
        )
        for pair, images, result in zip(pairs, loaded, results, strict=True)
        if images.image is not None and result.errors[image] is None
    ]  # fmt: skip
    if not views:
        return [{} for _ in pairs]
    found = iter(
        [{**answer, **read} for answer, read in zip(WorldAnswer()(views), JUDGE(views), strict=True)]
    )
    return [{} if result.errors[image] else next(found) for result in results]


def _psnr(a: Any, b: Any) -> float:
    return math.nan if a is None or b is None else psnr(a[None], b[None]).item()


def write(bench: Bench, out: Path, readme: bool) -> None:
    """Tables of the images that every method has, and of the first world's rows of the same images."""
    first = [
        row
        for row in map(json.loads, _lines(FIRST_WORLD))
        if row["sample"] in {pair.id for pair in bench.pairs}
    ]
    made = summary(known_rows(bench), first, list(bench.methods))
    made["model"] = {"name": bench.model.spec.name, "checksum": bench.model.spec.checksum}
    made["settings"] = {
        name: {"steps": bench.steps_of(name), **_plain(settings_of(one.inversion))}
        for name, one in bench.methods.items()
    }
    (out / "results.json").write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    text = report(made)
    (out / "results.md").write_text(text, encoding="utf-8")
    print(text)
    if readme:
        page = HERE / "README.md"
        page.write_text(with_tables(page.read_text(encoding="utf-8"), text), encoding="utf-8")


def with_tables(page: str, text: str) -> str:
    """A page with these tables between its marks."""
    before, rest = page.split(MARKS[0])
    return f"{before}{MARKS[0]}\n{text}{MARKS[1]}{rest.split(MARKS[1])[1]}"


def _plain(settings: Any) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name != "class"}


if __name__ == "__main__":
    main()
