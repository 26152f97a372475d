"""Edits of world pairs under every control, read by the oracles, and the answer to re-weighting.

    python experiments/control/measure.py [--per-kind 43] [--scenes 64] [--threads 2]

Writes rows.jsonl (a line per edit) and doses.jsonl (a line per re-weighted picture) into --work, where a
second call goes on from, then results.md, rows.parquet, doses.parquet and the pictures beside this file.
Oracle A accepts sources, oracle B judges.
"""

import argparse
import json
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from figures import write_all
from objects import ObjectReader, grown, object_reader, overlap
from torch import Tensor

import p2p_bench as p2p
from p2p_bench.controllers import ByEdit, Controller, InjectWords, LocalBlend, MasaCtrl, Reweight
from p2p_bench.data import WorldPairs
from p2p_bench.editing import EditRequest, EditResult, Target, run_edits
from p2p_bench.hashing import noise_seed
from p2p_bench.metrics.base import EditView
from p2p_bench.metrics.clip import ClipScore
from p2p_bench.metrics.lpips import Lpips
from p2p_bench.metrics.oracle import AttributeOracle, load_oracle
from p2p_bench.metrics.world import attribute_changed, others_kept
from p2p_bench.resources import resource_path
from p2p_bench.types import EditPair

HERE = Path(__file__).resolve().parent
KINDS = {
    "colour": "swap_colour",
    "pattern": "swap_pattern",
    "background": "swap_background",
    "shape": "swap_shape",
    "refinement, local": "refine_local",
    "refinement, global": "refine_global",
}
TAUS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
CROSS, SELF = 0.8, 0.4
FACTORS = (-2.0, -1.0, 0.0, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
PAIR_SEED, DOSE_SEED = 2024, 4048
Variant = tuple[str, Controller]


def variants(pair: EditPair) -> list[Variant]:
    """The 6 x 6 taus, (0, 0) being no control, and the controls that suit the pair."""
    chosen: list[Variant] = [(f"{a:g}/{b:g}", ByEdit(cross=a, self_attn=b)) for a in TAUS for b in TAUS]
    preset = ByEdit(cross=CROSS, self_attn=SELF)
    if pair.blend_words is not None:
        words, target_words = pair.blend_words
        chosen.append(("local blend", LocalBlend(words=words, target_words=target_words, inner=preset)))
    if pair.category == "swap_background":
        shape = pair.scene["objects"][0]["shape"]
        chosen.append(("object's word only", InjectWords(words=[shape], cross=CROSS, self_attn=0.0)))
    chosen.append(("masactrl", MasaCtrl()))
    return chosen


def drawn_pairs(category: str, count: int) -> list[EditPair]:
    """Pairs of one kind with one object."""
    pairs = WorldPairs(count=2 * count + 8, seed=PAIR_SEED, categories=[category]).pairs()
    return [pair for pair in pairs if pair.scene is not None and len(pair.scene["objects"]) == 1]


class Judges:
    """Everything that reads pictures."""

    def __init__(self, reader: ObjectReader) -> None:
        weights = resource_path("p2p_bench", "world", "weights")
        self.select: AttributeOracle = load_oracle(weights / "oracle_a")
        self.judge: AttributeOracle = load_oracle(weights / "oracle_b")
        self.reader = reader
        self.lpips, self.clip = Lpips(), ClipScore()

    def accepts(self, image: Tensor, scene: Mapping[str, Any]) -> bool:
        """Whether oracle A reads in a source what its prompt asked for."""
        seen = self.select.read(image[None])[0].values
        asked = {**scene["objects"][0], **scene}
        return all(seen[name] == asked[name] for name in seen)

    def rows(self, pair: EditPair, names: Sequence[str], images: Tensor) -> Iterator[dict[str, Any]]:
        """A line for each edit; `images` has the source first."""
        assert pair.scene is not None
        assert pair.scene_edit is not None
        source, *edited = self.judge.read(images)
        masks = self.reader.masks(images)
        views = [
            EditView(
                source=images[0],
                edited=image,
                source_prompt=pair.source_prompt,
                target_prompt=pair.target_prompts[0],
            )
            for image in images[1:]
        ]
        distances, scores = self.lpips(views), self.clip(views)
        for place, (name, reading) in enumerate(zip(names, edited, strict=True), start=1):
            outside = ~grown(masks[0] | masks[place])
            error = (images[place] - images[0]).square().mean(0)[outside].mean()
            yield {
                "pair": pair.id,
                "category": pair.category,
                "variant": name,
                "changed": attribute_changed(reading, pair.scene, pair.scene_edit),
                "kept": others_kept(source, reading, pair.scene, pair.scene_edit),
                "iou": overlap(masks[0], masks[place]),
                "background_mse": float(error),
                "lpips": distances[place - 1]["lpips"],
                "clip_target": scores[place - 1]["clip_target"],
            }


def measure_kind(
    model: p2p.DiffusionModel, judges: Judges, category: str, count: int, work: Path, chunk: int = 4
) -> None:
    """Appends the rows of `count` accepted pairs of one kind."""
    file = work / "rows.jsonl"
    done = _seen(file, category)
    accepted = sum(done.values())
    for start in range(0, 2 * count, chunk):
        pairs = drawn_pairs(category, count)[start : start + chunk]
        pairs = [pair for pair in pairs if pair.id not in done][: max(0, count - accepted)]
        if accepted >= count or not pairs:
            continue
        lines: list[dict[str, Any]] = []
        for pair, names, result in _edited(model, pairs, variants):
            if not judges.accepts(result.images[0], pair.scene or {}):
                lines.append({"pair": pair.id, "category": category, "variant": None})
                continue
            accepted += 1
            lines += judges.rows(pair, names, result.images)
            _keep(work / "pictures" / category, pair, names, result)
        _append(file, lines)
        logging.info("%s: %d of %d pairs", category, accepted, count)


def _seen(file: Path, category: str) -> dict[str, bool]:
    """Pairs of a kind that are in the file, and whether they were accepted."""
    found = (line for line in _lines(file) if line["category"] == category)
    return {line["pair"]: line["variant"] is not None for line in found}


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    return map(json.loads, text.splitlines())


def _edited(
    model: p2p.DiffusionModel, pairs: Sequence[EditPair], chosen: Callable[[EditPair], list[Variant]]
) -> Iterator[tuple[EditPair, list[str], EditResult]]:
    table = [chosen(pair) for pair in pairs]
    requests = [
        EditRequest(
            id=pair.id,
            source_prompt=pair.source_prompt,
            targets=tuple(Target(pair.target_prompts[0], controller) for _, controller in row),
            seed=noise_seed(PAIR_SEED, pair.id),
        )
        for pair, row in zip(pairs, table, strict=True)
    ]
    for pair, row, result in zip(pairs, table, run_edits(model, requests, max_rows=256), strict=True):
        if result.error is not None:
            raise result.error
        yield pair, [name for name, _ in row], result


def _keep(folder: Path, pair: EditPair, names: Sequence[str], result: EditResult) -> None:
    """Pictures of the first pairs of a kind, for the figures."""
    folder.mkdir(parents=True, exist_ok=True)
    if len(list(folder.iterdir())) < 8:
        images = (result.images * 255).round().byte()
        prompts = (pair.source_prompt, pair.target_prompts[0])
        saved = {"prompts": prompts, "names": ["source", *names], "images": images}
        torch.save(saved, folder / f"{pair.id}.pt")


def measure_doses(model: p2p.DiffusionModel, judges: Judges, scenes: int, work: Path, chunk: int = 6) -> None:
    """Appends the density of fog and of snow in pictures whose weather's word is weighted by each factor."""
    file = work / "doses.jsonl"
    done: dict[str, set[str]] = {}
    for line in _lines(file):
        done.setdefault(line["pair"], set()).add(line["variant"])
    drawn = WorldPairs(count=5 * scenes, seed=DOSE_SEED, categories=["reweight"]).pairs()
    pairs: list[EditPair] = []
    for weather in ("fog", "snow"):
        pairs += [pair for pair in drawn if (pair.scene or {})["weather"] == weather][:scenes]
    pairs = [pair for pair in pairs if len(done.get(pair.id, ())) < len(FACTORS)]
    for start in range(0, len(pairs), chunk):
        lines = []
        for pair, names, result in _edited(
            model, pairs[start : start + chunk], lambda pair: _weighted(pair, done.get(pair.id, frozenset()))
        ):
            for name, reading in zip(names, judges.judge.read(result.images[1:]), strict=True):
                weather = (pair.scene or {})["weather"]
                density = reading.weather_strength
                line = {"pair": pair.id, "category": pair.category, "weather": weather}
                lines.append({**line, "variant": name, "factor": float(name), "density": density})
            _keep(work / "pictures" / weather, pair, names, result)
        _append(file, lines)
        logging.info("re-weighting: %d of %d scenes", start + chunk, len(pairs))


def _weighted(pair: EditPair, done: Collection[str]) -> list[Variant]:
    """The pair's weather word times each factor that is not done, at every step; self-attention is held."""
    weather = (pair.scene or {})["weather"]
    chosen = [(f"{c:g}", Reweight({weather: c}, cross=1.0, self_attn=SELF)) for c in FACTORS]
    return [(name, controller) for name, controller in chosen if name not in done]


def _append(file: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    with file.open("a", encoding="utf-8") as stream:
        stream.writelines(json.dumps(line) + "\n" for line in lines)


def main() -> None:
    """Measures what is missing, then writes tables and pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--per-kind", type=int, default=43)
    parser.add_argument("--scenes", type=int, default=64)
    parser.add_argument("--kinds", nargs="*", choices=KINDS.values(), default=KINDS.values())
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--work", type=Path, default=Path("outputs/control"))
    parser.add_argument("--out", type=Path, default=HERE)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(options.threads)
    options.work.mkdir(parents=True, exist_ok=True)
    reader = object_reader(options.work / "reader.safetensors")
    model = p2p.load_model("world", dtype=getattr(torch, options.dtype))
    judges = Judges(reader)
    for category in options.kinds:
        measure_kind(model, judges, category, options.per_kind, options.work)
    measure_doses(model, judges, options.scenes, options.work)
    write_all(options.work, options.out, reader)


if __name__ == "__main__":
    main()
