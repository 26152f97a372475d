"""Metrics that only the embedded world allows: exact answers, and attributes read from the image."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from p2p_bench.errors import MissingWeightsError
from p2p_bench.metrics.base import LOADING, UNDEFINED, EditView, MetricColumn, Undefined
from p2p_bench.metrics.embedded import WORLD, embedded_weights
from p2p_bench.metrics.masks import divided
from p2p_bench.metrics.networks import Memo, content
from p2p_bench.metrics.oracle import (
    CONFIG,
    LABELS,
    PAIRS,
    WEIGHTS,
    AttributeOracle,
    OracleReading,
    ReadingErrors,
    load_oracle,
    reading_errors,
)
from p2p_bench.metrics.pixel import mse_outside, psnr
from p2p_bench.world.scenes.attributes import DEFAULT_STYLE, DEFAULT_WEATHER, SCENE_VALUES
from p2p_bench.world.scenes.render import SIDE


class WorldAnswer:
    """The edited image against the exact answer: the same scene rendered with one attribute changed.

    `answer_psnr` (counterfactual PSNR) covers the whole image: it falls if the edit did not happen and
    if anything else changed. `background_error` is the MSE against the answer over the pixels that
    the edit cannot reach, where answer and source are equal exactly.

    Both are defined for rendered scenes only. A pair that starts from noise has no answer and no mask,
    since its layout comes from the noise; both are NaN there, as is `background_error` where the edit
    reaches every pixel (style, weather) or none (an attribute set to what it is).
    """

    columns = (
        MetricColumn("answer_psnr", True, "dB", label="PSNR to the exact answer", role="other"),
        MetricColumn(
            "background_error", False, label="MSE where nothing may change", role="fidelity", version=2
        ),
    )

    def check(self) -> None:
        """Needs no files."""

    @torch.inference_mode()
    def __call__(self, views: Sequence[EditView]) -> list[dict[str, float]]:
        """Scores each view; see the class."""
        return [self._score(view) for view in views]

    def _score(self, view: EditView) -> dict[str, float]:
        row = {"answer_psnr": UNDEFINED, "background_error": UNDEFINED}
        if view.answer is not None:
            edited, answer = view.edited[None], view.answer[None]
            row["answer_psnr"] = psnr(edited, answer).item()
            regions = divided(view)
            row["background_error"] = (
                regions
                if isinstance(regions, Undefined)
                else mse_outside(edited, answer, regions["inside"].float()[None]).item()
            )
        return row


MAX_READER_ERROR = 0.2
"""Share of faultless pictures that a reader may misread in an attribute and still be asked for it."""


def unread(errors: ReadingErrors, scene: Mapping[str, Any], edit: Mapping[str, Any]) -> dict[str, str]:
    """What the reader is not asked for in this edit, each with the reason.

    A style can leave so little of an attribute (the pattern in a sketch) that the reader misreads even what
    is exactly right. Style and weather count, before the edit and after it.

    Args:
        errors: How often the reader misreads.
        scene: The source scene.
        edit: `{"attribute", "value", "index"}`.
    """
    looks = [scene.get("style", DEFAULT_STYLE), scene.get("weather", DEFAULT_WEATHER)]
    if edit["attribute"] in ("style", "weather"):
        looks.append(edit["value"])
    return {
        name: f"the reader misreads {name} in {share:.0%} of faultless pictures ({look})"
        for look in looks
        for name, share in errors.get(look, {}).items()
        if share > MAX_READER_ERROR
    }


def errors_in_words(errors: ReadingErrors) -> str:
    """How often the reader misreads plain photos, and what it is not asked for; "" where that is unknown."""
    if not errors:
        return ""
    photos = ", ".join(f"{name} {share:.1%}" for name, share in errors.get(DEFAULT_STYLE, {}).items())
    unasked = [
        f"{name} ({look}, {share:.0%})"
        for look, shares in errors.items()
        for name, share in shares.items()
        if share > MAX_READER_ERROR
    ]
    text = f"of faultless photos the reader itself misreads {photos}"
    return f"{text}; above {MAX_READER_ERROR:.0%} it is not asked: {', '.join(unasked)}" if unasked else text


def attribute_changed(
    edited: OracleReading,
    scene: Mapping[str, Any],
    edit: Mapping[str, Any],
    answer: OracleReading | None = None,
    unread: Mapping[str, str] | None = None,
) -> float:
    """Whether the oracle reads the asked-for value in the edited image: 1 or 0.

    With two objects, shape and colour count as changed if the oracle sees an object of that shape
    *and* colour; the pattern of one of two objects is not readable.

    Args:
        edited: What the oracle reads in the edited image.
        scene: The source scene.
        edit: `{"attribute", "value", "index"}`.
        answer: What it reads in the exact answer, where there is one: what it does not find there, it is
            not asked for.
        unread: Further names that it is not asked for, with reasons.

    Returns:
        NaN where the oracle cannot tell (numbers such as a size, the pattern of one of two objects),
        and, with the reason, where it is not asked.
    """
    name = edit["attribute"]
    if name not in LABELS or (name == "pattern" and len(scene["objects"]) > 1):
        return UNDEFINED
    together = name in ("shape", "colour") and len(scene["objects"]) > 1
    reason = (unread or {}).get(PAIRS if together else name)
    if reason is not None:
        return Undefined(reason)

    def shows(reading: OracleReading) -> bool:
        if together:
            return _shape_and_colour(scene, edit, changed=True) in reading.pairs
        return bool(reading.values[name] == edit["value"])

    if answer is not None and not shows(answer):
        return Undefined(f"the reader does not find the {name} in the exact answer either")
    return float(shows(edited))


def others_kept(
    source: OracleReading,
    edited: OracleReading,
    scene: Mapping[str, Any],
    edit: Mapping[str, Any],
    answer: OracleReading | None = None,
    unread: Collection[str] = (),
) -> float:
    """Whether the oracle reads everything but the edited attribute alike in source and edited image: 1 or 0.

    For one object these are shape, colour, pattern, background, style and weather. For two objects
    they are background, style and weather, and every (shape, colour) that is read in the source,
    the edited object's apart, must be read in the edited image. What the oracle reads in the source
    counts, not what the source was meant to show. A change of the weather's strength leaves out
    the weather.

    Args:
        source: What the oracle reads in the source image.
        edited: What it reads in the edited image.
        scene: The source scene.
        edit: `{"attribute", "value", "index"}`.
        answer: What it reads in the exact answer, where there is one: what it does not read alike in
            source and answer, it is not asked for.
        unread: Further names that it is not asked for.
    """
    name = "weather" if edit["attribute"] == "weather_strength" else edit["attribute"]
    single = len(scene["objects"]) == 1
    names = [other for other in (LABELS if single else SCENE_VALUES) if other not in (name, *unread)]
    if answer is not None:
        names = [other for other in names if source.values[other] == answer.values[other]]
    if any(source.values[other] != edited.values[other] for other in names):
        return 0.0
    if single or PAIRS in unread:
        return 1.0
    to_keep = set(source.pairs)
    if name in ("shape", "colour"):
        to_keep.discard(_shape_and_colour(scene, edit, changed=False))
    if answer is not None:
        to_keep &= set(answer.pairs)
    return float(to_keep <= set(edited.pairs))


def _shape_and_colour(scene: Mapping[str, Any], edit: Mapping[str, Any], changed: bool) -> tuple[str, str]:
    """Shape and colour of the edited object, before or after the edit."""
    item = dict(scene["objects"][edit.get("index", 0)])
    if changed:
        item[edit["attribute"]] = edit["value"]
    return item["shape"], item["colour"]


_READ = (
    MetricColumn(
        "attribute_changed",
        True,
        label="Attribute changed (oracle)",
        version=2,
        backbone=WORLD,
        role="editability",
    ),
    MetricColumn(
        "others_kept",
        True,
        label="Other attributes kept (oracle)",
        version=2,
        backbone=WORLD,
        role="fidelity",
    ),
)


_REMEMBERED = 64
"""Images whose readings are kept: those of a few batches."""


class WorldAttributes:
    """What a classifier that never saw the generator reads in the edited image.

    `attribute_changed` and `others_kept` are 1 or 0, defined by the functions of these names, and NaN
    for pairs that bring no scene. Where a perfect edit would be misread (`unread`, or the exact answer is),
    an attribute is not asked. The judge is the second of the world's two oracles; the first one is left for
    selecting. Its own errors stand in the columns.

    Args:
        weights: Folder of another oracle; None takes the shipped one.
    """

    def __init__(self, weights: str | Path | None = None) -> None:
        self.weights = weights
        self._oracle: AttributeOracle | None = None
        self._readings: Memo[OracleReading] = Memo(_REMEMBERED)

    @property
    def columns(self) -> tuple[MetricColumn, ...]:
        """Its two columns, with the errors that were measured of the oracle."""
        errors = self._errors()
        note = errors_in_words(errors)
        return tuple(dataclasses.replace(column, reader_errors=errors, note=note) for column in _READ)

    def check(self) -> None:
        """Looks for the oracle's weights.

        Raises:
            MissingWeightsError: They are not there.
        """
        self._locate()

    def files(self) -> tuple[Path, ...]:
        """The oracle's weights, and its settings: what it misreads decides what it is asked."""
        folder = self._locate()
        return tuple(folder / name for name in (WEIGHTS, CONFIG) if (folder / name).is_file())

    def load(self) -> None:
        """Loads the oracle.

        Raises:
            MissingWeightsError: Its files are absent, or not the oracle's.
        """
        with LOADING:
            if self._oracle is None:
                self._oracle = load_oracle(self._locate())

    @torch.inference_mode()
    def __call__(self, views: Sequence[EditView]) -> list[dict[str, float]]:
        """Scores each view; see the class."""
        rows = [{"attribute_changed": UNDEFINED, "others_kept": UNDEFINED} for _ in views]
        judged = [i for i, view in enumerate(views) if view.scene is not None and view.scene_edit is not None]
        if not judged:
            return rows
        images = [image for i in judged for image in (views[i].source, views[i].edited)]
        answered = [i for i in judged if views[i].answer is not None]
        answers = [views[i].answer for i in answered]
        readings = self._read([*images, *(image for image in answers if image is not None)])
        known = dict(zip(answered, readings[len(images) :], strict=True))
        errors = self._errors()
        for place, i in enumerate(judged):
            source, edited = readings[2 * place : 2 * place + 2]
            scene, edit = views[i].scene, views[i].scene_edit
            assert scene is not None
            assert edit is not None
            answer, left_out = known.get(i), unread(errors, scene, edit)
            rows[i] = {
                "attribute_changed": attribute_changed(edited, scene, edit, answer, left_out),
                "others_kept": others_kept(source, edited, scene, edit, answer, left_out),
            }
        return rows

    def _errors(self) -> ReadingErrors:
        """Empty also where the oracle is absent, which `check` says."""
        try:
            return reading_errors(self._locate())
        except MissingWeightsError:
            return {}

    def _read(self, images: Sequence[Float[Tensor, "3 h w"]]) -> list[OracleReading]:
        """Readings of images, each read once: variants share sources and answers."""
        return self._readings(
            [content(image) for image in images], lambda new: self._read_new([images[i] for i in new])
        )

    def _read_new(self, images: Sequence[Float[Tensor, "3 h w"]]) -> list[OracleReading]:
        """Readings of images, brought to the size the oracle knows."""
        self.load()
        assert self._oracle is not None
        stacked = torch.stack(list(images))
        if stacked.shape[-2:] != (SIDE, SIDE):
            stacked = interpolate(stacked, size=(SIDE, SIDE), mode="bicubic", antialias=True).clamp(0, 1)
        return self._oracle.to(stacked.device).read(stacked)

    def _locate(self) -> Path:
        return embedded_weights("oracle_b", self.weights, WEIGHTS)
