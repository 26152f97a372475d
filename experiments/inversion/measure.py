"""Every inversion on rendered images whose exact edits are known; ranks of methods beside published ranks.

    python experiments/inversion/measure.py [--images 128] [--first 0] [--steps 25] [--report]

Appends a line to rows.jsonl for every (method, guidance, image), a batch of images with every method before
the next, and writes results.md and captions.png beside this file. A run started again does what is missing;
lines of other weights or another number of steps are left out. `--report` only writes results.md anew.
"""

import argparse
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

import p2p_bench as p2p
from p2p_bench.bench.pictures import heatmap_image, save_png, strip
from p2p_bench.data.base import PairImages
from p2p_bench.data.world import WorldReal
from p2p_bench.inversion import (
    DDIMInversion,
    DirectInversion,
    EDICTInversion,
    EditFriendlyInversion,
    Inversion,
    NegativePromptInversion,
    NoisingInversion,
    NullTextInversion,
    ProximalInversion,
    ReNoiseInversion,
)
from p2p_bench.metrics.base import EditView
from p2p_bench.metrics.pixel import psnr
from p2p_bench.metrics.world import WorldAnswer, WorldAttributes
from p2p_bench.sampling import Replay
from p2p_bench.stats import draw_groups, mean_interval
from p2p_bench.types import EditPair

HERE = Path(__file__).resolve().parent
BATCH = 8
PAIR_SEED = 77
OWN, HIGH = 4.0, 7.5
CONTROLLER = p2p.ByEdit(cross=0.8, self_attn=0.4)
JUDGE = WorldAttributes()

METHODS: dict[str, tuple[Inversion, tuple[float, ...]]] = {
    "ddim": (DDIMInversion(), (OWN, HIGH)),
    "null_text": (NullTextInversion(learning_rate=0.1), (OWN, HIGH)),
    "negative_prompt": (NegativePromptInversion(), (OWN, HIGH)),
    "proximal": (ProximalInversion(), (OWN, HIGH)),
    "direct": (DirectInversion(), (OWN, HIGH)),
    "edit_friendly": (EditFriendlyInversion(), (OWN,)),
    "renoise": (ReNoiseInversion(), (OWN,)),
    "edict": (EDICTInversion(), (3.0,)),
    "noising 0.5": (NoisingInversion(strength=0.5), (OWN,)),
    "noising 0.65": (NoisingInversion(strength=0.65), (OWN,)),
    "noising 0.8": (NoisingInversion(strength=0.8), (OWN,)),
}
"""Method -> the inversion and the guidance scales of the edit; EDICT keeps to its own in any case."""

COLUMNS = {
    "recon_image": ("reconstruction, dB to the image", 1.0, 1),
    "recon_vae": ("dB to the VAE's", 1.0, 1),
    "background_error": ("background error x 1e3", 1e3, 2),
    "answer_psnr": ("dB to the exact answer", 1.0, 1),
    "attribute_changed": ("changed %", 100.0, 0),
    "others_kept": ("others kept %", 100.0, 0),
}
"""Column -> title, factor, digits."""

FIDELITY = ("direct", "null_text", "negative_prompt", "ddim")
"""Published order on PIE-Bench, best first: structure distance, PSNR, LPIPS, MSE and SSIM all agree on it."""

EDITABILITY = ("ddim", "direct", "negative_prompt", "null_text")
"""Published order of the CLIP score of the edited part, best first."""


@dataclass(frozen=True)
class Bench:
    """What is loaded once.

    Attributes:
        model: The embedded model.
        pairs: All pairs.
        data: Where their pixels come from.
        steps: Number of steps.
    """

    model: p2p.DiffusionModel
    pairs: Sequence[EditPair]
    data: WorldReal
    steps: int


def main() -> None:
    """Measures what is missing and writes the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=128, help="number of images, from --first")
    parser.add_argument("--first", type=int, default=0, help="first image; lets two processes share the work")
    parser.add_argument("--steps", type=int, help="None: the model's own")
    parser.add_argument("--report", action="store_true", help="measure nothing")
    parser.add_argument("--out", type=Path, default=HERE)
    arguments = parser.parse_args()
    model = p2p.load_model("world")
    data = WorldReal(count=arguments.first + arguments.images, seed=PAIR_SEED)
    bench = Bench(model, data.pairs(), data, arguments.steps or model.spec.steps)
    file = arguments.out / "rows.jsonl"
    if not arguments.report:
        for first in range(arguments.first, arguments.first + arguments.images, BATCH):
            measure_batch(bench, range(first, min(first + BATCH, len(bench.pairs))), file)
        captions(bench, arguments.out / "captions.png")
    text = report(known_rows(bench, file))
    (arguments.out / "results.md").write_text(text, encoding="utf-8")
    print(text)


def known_rows(bench: Bench, file: Path) -> list[dict[str, Any]]:
    """The rows of this model and number of steps, one per (method, guidance, image)."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    rows = {}
    for row in map(json.loads, lines):
        if (row["model"], row["steps"]) == (bench.model.spec.checksum, bench.steps):
            rows[row["method"], row["guidance"], row["sample"]] = row
    return list(rows.values())


def measure_batch(bench: Bench, places: range, file: Path) -> None:
    """Every method at every guidance on a few images, unless it is there already."""
    done = {(row["method"], row["guidance"], row["sample"]) for row in known_rows(bench, file)}
    pairs = [bench.pairs[place] for place in places]
    loaded = [bench.data.load(pair, bench.model.spec.image_size) for pair in pairs]
    for name, (inversion, scales) in METHODS.items():
        made: dict[Inversion, Made] = {}
        for guidance in scales:
            if all((name, guidance, pair.id) in done for pair in pairs):
                continue
            method = inversion.for_guidance(guidance)
            if method not in made:  # most methods do not depend on the guidance of the edit
                made[method] = Made.by(method, bench, pairs, loaded)
            rows = measured(bench, name, made[method], guidance, pairs, loaded)
            with file.open("a", encoding="utf-8") as out:
                out.write("".join(json.dumps(row) + "\n" for row in rows))
            print(f"{places.start:4d} {name} {guidance:g}: {rows[0]['seconds']:.1f} s an image", flush=True)


@dataclass(frozen=True, eq=False)
class Made(Inversion):
    """An inversion that has been made.

    Attributes:
        replays: By image, in the order of the batch.
        seconds: CPU time it took.
    """

    replays: tuple[Replay, ...]
    seconds: float

    @classmethod
    def by(
        cls, method: Inversion, bench: Bench, pairs: Sequence[EditPair], loaded: Sequence[PairImages]
    ) -> "Made":
        """Inverts the images."""
        images = torch.stack([one.image for one in loaded if one.image is not None])
        prompts = [pair.source_prompt for pair in pairs]
        # Time of this process alone, on its threads: another program on the machine does not count.
        started = time.process_time()
        replays = method.invert(bench.model, images, prompts, bench.steps, list(range(len(pairs))))
        return cls(tuple(replays), time.process_time() - started)

    def invert(self, *arguments: Any, **options: Any) -> Sequence[Replay]:
        """See `Inversion.invert`: what was made."""
        return self.replays


def measured(
    bench: Bench,
    name: str,
    made: Made,
    guidance: float,
    pairs: Sequence[EditPair],
    loaded: Sequence[PairImages],
) -> list[dict[str, Any]]:
    """The rows of a batch of images."""
    requests = [
        p2p.EditRequest(
            id=pair.id,
            source_prompt=pair.source_prompt,
            targets=(p2p.Target(pair.target_prompts[0], CONTROLLER.for_pair(pair.word_weights)),),
            image=images.image,
            inversion=made,
        )
        for pair, images in zip(pairs, loaded, strict=True)
    ]
    started = time.process_time()
    results = p2p.run_edits(bench.model, requests, steps=bench.steps, guidance=guidance)
    seconds = (made.seconds + time.process_time() - started) / len(pairs)
    views = [
        EditView(
            images.image, result.images[1], pair.source_prompt, pair.target_prompts[0],
            mask=images.mask, answer=images.answer, scene=pair.scene, scene_edit=pair.scene_edit,
        )
        for pair, images, result in zip(pairs, loaded, results, strict=True)
        if images.image is not None
    ]  # fmt: skip
    scores = [
        {**answer, **attributes}
        for answer, attributes in zip(WorldAnswer()(views), JUDGE(views), strict=True)
    ]
    return [
        {
            "model": bench.model.spec.checksum,
            "steps": bench.steps,
            "method": name,
            "guidance": guidance,
            "sample": pair.id,
            "category": pair.category,
            "recon_image": _psnr(result.images[0], images.image),
            "recon_vae": _psnr(result.images[0], result.vae_reconstruction),
            "vae_image": _psnr(result.vae_reconstruction, images.image),
            **{column: None if math.isnan(value) else value for column, value in score.items()},
            "seconds": seconds,
            "unet_rows": result.unet_rows,
            "unet_rows_backward": result.inversion_rows_backward,
        }
        for pair, images, result, score in zip(pairs, loaded, results, scores, strict=True)
    ]


def _psnr(a: torch.Tensor | None, b: torch.Tensor | None) -> float:
    assert a is not None
    assert b is not None
    return psnr(a[None], b[None]).item()


def report(rows: Sequence[Mapping[str, Any]]) -> str:
    """The tables, over the images that every method has."""
    wanted = {(name, scale) for name, (_, scales) in METHODS.items() for scale in scales}
    seen: dict[str, set[tuple[str, float]]] = {}
    for row in rows:
        seen.setdefault(row["sample"], set()).add((row["method"], row["guidance"]))
    whole = {sample for sample, have in seen.items() if have >= wanted}
    kept = [row for row in rows if row["sample"] in whole]
    if not kept:
        return "No image has been edited with every method yet.\n"
    bound = mean_interval([row["vae_image"] for row in kept], [row["sample"] for row in kept])
    parts = [
        f"{len(whole)} images, {kept[0]['steps']} steps; 95 % intervals from resampling scenes. The VAE "
        f"alone reaches {bound.mean:.1f} dB ({bound.low:.1f} to {bound.high:.1f}). Seconds are CPU time of "
        f"one image with its inversion and its edit, in batches of {BATCH}."
    ]
    scales = sorted({row["guidance"] for row in kept})
    parts += [
        f"**Guidance {scale:g}**\n\n{table([row for row in kept if row['guidance'] == scale])}"
        for scale in scales
    ]
    parts += [ranks(kept, scale) for scale in (OWN, HIGH)]
    return "\n\n".join(parts) + "\n"


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line per method."""
    titles = [title for title, _, _ in COLUMNS.values()]
    lines = [
        f"| method | {' | '.join(titles)} | s | UNet rows (backward) |",
        "|---" * (len(titles) + 3) + "|",
    ]
    for name in METHODS:
        own = [row for row in rows if row["method"] == name]
        if not own:
            continue
        cells = [
            _cell([_number(row[column]) for row in own], factor, digits)
            for column, (_, factor, digits) in COLUMNS.items()
        ]
        means = {
            key: np.mean([row[key] for row in own]) for key in ("seconds", "unet_rows", "unet_rows_backward")
        }
        cost = f"{means['unet_rows']:.0f}" + (
            f" ({means['unet_rows_backward']:.0f})" if means["unet_rows_backward"] else ""
        )
        lines.append(f"| {name} | {' | '.join(cells)} | {means['seconds']:.1f} | {cost} |")
    return "\n".join(lines)


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _cell(values: Sequence[float], factor: float, digits: int) -> str:
    mean = mean_interval(values)
    low, middle, high = (f"{factor * value:.{digits}f}" for value in (mean.low, mean.mean, mean.high))
    return f"{middle} ({low} to {high})"


def ranks(rows: Sequence[Mapping[str, Any]], scale: float) -> str:
    """Rank correlation of four methods here with their published order, over resampled scenes."""
    own = [row for row in rows if row["guidance"] == scale]
    lines = [
        f"**Ranks at guidance {scale:g}**",
        "",
        "| question | published order | order here | Spearman's rho (95 % interval) |",
        "|---|---|---|---|",
    ]
    for question, column, sign, order in (
        ("keeps the background", "background_error", -1.0, FIDELITY),
        ("changes the attribute", "attribute_changed", 1.0, EDITABILITY),
    ):
        values = _by_scene(own, column, order)
        rho = _rho(np.nanmean(values, 0) * sign)
        draws = draw_groups(len(values), 0, 2000)
        low, high = np.percentile([_rho(np.nanmean(values[draw], 0) * sign) for draw in draws], [2.5, 97.5])
        here = _ordered(order, np.nanmean(values, 0) * sign)
        lines.append(f"| {question} | {' > '.join(order)} | {here} | {rho:.2f} ({low:.2f} to {high:.2f}) |")
    return "\n".join(lines)


def _ordered(names: Sequence[str], scores: np.ndarray) -> str:
    """Names from the best score down, with = between equal ones."""
    places = np.argsort(-scores, kind="stable")
    text = names[places[0]]
    for before, place in pairwise(places):
        text += (" = " if scores[before] == scores[place] else " > ") + names[place]
    return text


def _by_scene(rows: Sequence[Mapping[str, Any]], column: str, methods: Sequence[str]) -> np.ndarray:
    """Values as (scenes, methods), scenes without a value left out."""
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        if row["method"] in methods and row[column] is not None:
            found.setdefault(row["sample"], {})[row["method"]] = row[column]
    return np.array([[by[method] for method in methods] for by in found.values() if len(by) == len(methods)])


def _rho(scores: np.ndarray) -> float:
    """Spearman's correlation of scores, best first expected, with that order; ties share their rank."""
    better = np.array([[(a > b) + 0.5 * (a == b) for b in scores] for a in scores]).sum(1)
    expected = np.arange(len(scores), 0, -1, dtype=float)
    return 0.0 if better.std() == 0 else float(np.corrcoef(better, expected)[0, 1])


def captions(bench: Bench, path: Path) -> None:
    """The "different captions" study: one image inverted with captions that fit less and less."""
    pair = next(pair for pair in bench.pairs if pair.scene is not None and len(pair.scene["objects"]) == 1)
    assert pair.scene is not None
    image = bench.data.load(pair, bench.model.spec.image_size).image
    shape, background = pair.scene["objects"][0]["shape"], pair.scene["background"]
    other = "star" if shape != "star" else "circle"
    pictures: dict[str, torch.Tensor] = {}
    method = NullTextInversion(learning_rate=0.1)
    for label, source, word in (
        ("true", pair.source_prompt, shape),
        ("short", f"a {shape}", shape),
        ("wrong", f"a {other} on {background}", other),
    ):
        result = p2p.edit(
            bench.model, source, source, image=image, inversion=method, steps=bench.steps, record=True
        )
        pictures[f"{label}: reconstruction"] = result.images[0]
        pictures[f"{label}: {word!r}"] = heatmap_image(result.images[0], result.heatmap(word, 0))
    save_png(path, strip(pictures))


if __name__ == "__main__":
    main()
