"""How often an oracle misreads what is exactly right: renders that have passed through the autoencoder."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

from p2p_bench.metrics.oracle import CONFIG, ERRORS, LABELS, PAIRS, AttributeOracle, OracleReading
from p2p_bench.world.scenes import STYLES, WEATHERS, Scene, render, sample_scene
from p2p_bench.world.training.images import VALIDATION_SEEDS
from p2p_bench.world.training.pairs import through_vae

LOOKS = (*STYLES, *WEATHERS[1:])
"""The styles in clear weather and the weathers in a photo; a reader's errors are told for each."""

_FIRST_SEED = VALIDATION_SEEDS + 500_000


@dataclasses.dataclass(frozen=True)
class ReadingsRecipe:
    """How the errors of the oracles are measured.

    Attributes:
        scenes: of one object, and as many of two, for each of `LOOKS`.
    """

    scenes: int = 160


def with_look(scene: Scene, look: str) -> Scene:
    """The scene in one of `LOOKS`; its weather's strength stays as drawn."""
    return scene.with_attribute("style" if look in STYLES else "weather", look)


def look_scenes(look: str, count: int, objects: int) -> list[Scene]:
    """Scenes that were never trained on, all in one of `LOOKS`."""
    first = _FIRST_SEED + 20_000 * LOOKS.index(look) + 10_000 * objects
    two = float(objects == 2)
    plain = (sample_scene(first + i, two_objects=two, styled=0.0, weathered=0.0) for i in range(count))
    return [with_look(scene, look) for scene in plain]


def misread(reading: OracleReading, scene: Scene) -> dict[str, bool]:
    """Whether each attribute is misread, or, with two objects, whether they are not both found."""
    if len(scene.objects) == 2:
        return {PAIRS: not {(item.shape, item.colour) for item in scene.objects} <= set(reading.pairs)}
    true = {**dataclasses.asdict(scene.objects[0]), **dataclasses.asdict(scene)}
    return {name: reading.values[name] != true[name] for name in LABELS}


def shares_misread(readings: Sequence[OracleReading], scenes: Sequence[Scene]) -> dict[str, float]:
    """Share of the scenes in which `misread` says so, for each name that it has."""
    found: dict[str, list[bool]] = {}
    for reading, scene in zip(readings, scenes, strict=True):
        for name, wrong in misread(reading, scene).items():
            found.setdefault(name, []).append(wrong)
    return {name: round(sum(wrong) / len(wrong), 4) for name, wrong in found.items()}


def measure_errors(
    oracles: Sequence[AttributeOracle], vae: AutoencoderKL, recipe: ReadingsRecipe
) -> list[dict[str, dict[str, float]]]:
    """By look, then by attribute or pairs, the share that each oracle misreads; see `ReadingErrors`."""
    errors: list[dict[str, dict[str, float]]] = [{} for _ in oracles]
    for look in LOOKS:
        scenes = [scene for n in (1, 2) for scene in look_scenes(look, recipe.scenes, n)]
        images = through_vae(vae, render(scenes).images)
        for oracle, found in zip(oracles, errors, strict=True):
            found[look] = shares_misread(oracle.read(images), scenes)
    return errors


def write_errors(folder: Path, errors: dict[str, dict[str, float]]) -> None:
    """Puts the errors into the configuration of the oracle in `folder`."""
    file = folder / CONFIG
    settings = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**settings, ERRORS: errors}, indent=2) + "\n", encoding="utf-8")
