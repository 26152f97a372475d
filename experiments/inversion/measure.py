"""Every inversion on rendered images whose exact edits are known; ranks of methods beside published ranks.

    python experiments/inversion/measure.py [--images 128] [--first 0] [--steps 25] [--report]

Appends a line to rows.jsonl for every (method, guidance, image), a batch of images with every method before
the next, and writes results.md and captions.png beside this file. A run started again does what is missing;
lines of other weights, of another number of steps or of another version of the attributes' reader are left
out. `--report` only writes results.md anew.
"""

import argparse
import json
import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tables import HIGH, OWN, report

import p2p_bench as p2p
from p2p_bench.bench.pictures import save_png
from p2p_bench.data.base import PairImages
from p2p_bench.data.world import WorldReal
from p2p_bench.editing.pictures import heatmap_image, strip
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
from p2p_bench.inversion.base import read_sources
from p2p_bench.metrics.base import EditView
from p2p_bench.metrics.pixel import psnr
from p2p_bench.metrics.world import WorldAnswer, WorldAttributes
from p2p_bench.sampling import Replay
from p2p_bench.types import EditPair

HERE = Path(__file__).resolve().parent
BATCH = 8
PAIR_SEED = 77
CONTROLLER = p2p.ByEdit(cross=0.8, self_attn=0.4)
JUDGE = WorldAttributes()
READER = max(column.version for column in JUDGE.columns)
"""Version of the attributes' reader."""

METHODS: dict[str, tuple[Inversion, tuple[float, ...]]] = {
    "ddim": (DDIMInversion(), (OWN, HIGH)),
    "null_text": (NullTextInversion(learning_rate=0.1), (OWN, HIGH)),
    "null_text, decay": (NullTextInversion(learning_rate=0.1, decay=1e-3), (OWN, HIGH)),
    "null_text, source": (NullTextInversion(learning_rate=0.1, serves="source"), (OWN, HIGH)),
    "negative_prompt": (NegativePromptInversion(), (OWN, HIGH)),
    "proximal": (ProximalInversion(), (OWN, HIGH)),
    "direct": (DirectInversion(), (OWN, HIGH)),
    "edit_friendly": (EditFriendlyInversion(), (OWN, HIGH)),
    "renoise": (ReNoiseInversion(), (OWN, HIGH)),
    "edict": (EDICTInversion(), (3.0,)),
    "noising 0.5": (NoisingInversion(strength=0.5), (OWN, HIGH)),
    "noising 0.65": (NoisingInversion(strength=0.65), (OWN, HIGH)),
    "noising 0.8": (NoisingInversion(strength=0.8), (OWN, HIGH)),
}
"""Method -> the inversion and the guidance scales of the edit; EDICT keeps to its own in any case."""


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
        places = missing(bench, range(arguments.first, arguments.first + arguments.images), file)
        for start in range(0, len(places), BATCH):
            measure_batch(bench, places[start : start + BATCH], file)
        captions(bench, arguments.out / "captions.png")
    text = report(known_rows(bench, file), METHODS)
    (arguments.out / "results.md").write_text(text, encoding="utf-8")
    print(text)


def known_rows(bench: Bench, file: Path) -> list[dict[str, Any]]:
    """The rows of this model, number of steps and reader, one per (method, guidance, image)."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    rows = {}
    for row in map(json.loads, lines):
        if (row["model"], row["steps"], row["reader"]) == (bench.model.spec.checksum, bench.steps, READER):
            rows[row["method"], row["guidance"], row["sample"]] = row
    return list(rows.values())


def missing(bench: Bench, places: Sequence[int], file: Path) -> list[int]:
    """The images that some method has not edited at some guidance yet."""
    seen = Counter(row["sample"] for row in known_rows(bench, file))
    wanted = sum(len(scales) for _, scales in METHODS.values())
    return [place for place in places if seen[bench.pairs[place].id] < wanted]


def measure_batch(bench: Bench, places: Sequence[int], file: Path) -> None:
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
                made[method] = Made.by(method, bench, pairs, loaded, [place % BATCH for place in places])
            rows = measured(bench, name, made[method], guidance, pairs, loaded)
            with file.open("a", encoding="utf-8") as out:
                out.write("".join(json.dumps(row) + "\n" for row in rows))
            print(f"{places[0]:4d} {name} {guidance:g}: {rows[0]['seconds']:.1f} s an image", flush=True)


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
        cls,
        method: Inversion,
        bench: Bench,
        pairs: Sequence[EditPair],
        loaded: Sequence[PairImages],
        seeds: Sequence[int],
    ) -> "Made":
        """Inverts the images."""
        images = torch.stack([one.image for one in loaded if one.image is not None])
        prompts = [pair.source_prompt for pair in pairs]
        # Time of this process alone, on its threads: another program on the machine does not count.
        started = time.process_time()
        sources = read_sources(bench.model, images, prompts, seeds)
        replays = method.invert(bench.model, sources, bench.steps)
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
            "reader": READER,
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
