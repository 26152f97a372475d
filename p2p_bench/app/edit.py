"""One edit, in one call."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from jaxtyping import Float
from torch import Tensor

from p2p_bench.app.api import named
from p2p_bench.cache import Cache
from p2p_bench.controllers import Controller
from p2p_bench.data.images import FITS, Fit
from p2p_bench.editing import arguments
from p2p_bench.editing.attention import Record
from p2p_bench.editing.budget import budget_of
from p2p_bench.editing.images import ImageLike, as_source_image
from p2p_bench.editing.repair import Repair
from p2p_bench.editing.request import EditRequest, Target, raise_all
from p2p_bench.editing.result import EditResult
from p2p_bench.editing.run import Progress, can_record, run_edits
from p2p_bench.errors import P2PError
from p2p_bench.inversion import DDIMInversion, Inversion
from p2p_bench.models import DiffusionModel
from p2p_bench.models.timesteps import SPACINGS, Spacing
from p2p_bench.models.vocabulary import warn_never_seen
from p2p_bench.pinned import with_pinned_settings
from p2p_bench.sampling import DDIMSampler, Sampler
from p2p_bench.sampling.sampler import warn_of_steps

T = TypeVar("T")


@with_pinned_settings
def edit(
    model: DiffusionModel,
    source: str,
    targets: str | Sequence[str],
    controller: Controller | str | Sequence[Controller | str] | None = None,
    *,
    image: ImageLike | None = None,
    fit: Fit | None = None,
    inversion: Inversion | str | None = None,
    inversion_prompt: str | None = None,
    noise: Float[Tensor, "..."] | None = None,
    seed: int = 0,
    steps: int | None = None,
    guidance: float | None = None,
    eta: float = 0.0,
    sampler: Sampler | str | None = None,
    spacing: Spacing | None = None,
    record: bool | Record | None = None,
    truncate: bool = False,
    progress: Progress | None = None,
    cache: Cache | None = None,
    repair: bool | Repair = False,
) -> EditResult:
    """Edits one source, generated or real, into its targets.

    Threads may share the model: each gets what it would get alone. Settings of the process, such as torch's
    default number format or an autocast around the call, change nothing (see `p2p_bench.pinned`).

    Args:
        model: A loaded model.
        source: Prompt of the source image.
        targets: Prompts of the edits; each shares the source's noise and its attention.
        controller: How the source's attention is used, for all targets or one per target; each may be the
            name of a file in `conf/controller`, such as "replace". None is `NoControl`, plain generation from
            the same noise.
        image: A real source image: a path, a PIL image, an array (h, w, 3) or a tensor (3, h, w); see
            `p2p_bench.editing.images.as_source_image`.
        fit: What is done with an image that has not the model's size: "crop" to the centre and resize, "pad",
            "resize" (stretch) or "error"; None is "error" for a tensor and "crop" for the others.
        inversion: How the start is found from `image`, or the name of a file in `conf/inversion`, such as
            "null_text"; None is `DDIMInversion()`.
        inversion_prompt: What the image is inverted with, where that is not `source`; may be empty.
        noise: Start noise (c, h, w) or (1, c, h, w) instead of the seed's.
        seed: In [0, 2**64). Start noise is what diffusers draws from a generator of the CPU with this seed.
        steps: Number of denoising steps; None is the model's own.
        guidance: Classifier-free guidance scale; 1 takes no unconditional pass; None is the model's own.
        eta: Share of DDPM's noise added by each step of DDIM, in [0, 1].
        sampler: What samples, such as `EulerSampler()` of `p2p_bench.sampling`, or the name of a file in
            `conf/sampler`, such as "dpmpp_2m"; None is DDIM. `steps`, `guidance` and `spacing` go before its.
        spacing: Layout of the timesteps: "leading", "trailing" or "linspace", see `TimestepLayout`; None is
            the model's own, or where its files name none, that of the sampler in diffusers.
        record: Which attention maps are kept for `EditResult.heatmaps` and its kin: True is `Record()`, None
            is that too where the model has cross-attention at its `record_fraction`.
        truncate: Cut prompts that are too long instead of refusing them.
        progress: Called with the steps taken and their number after each step.
        cache: Where inversions are looked for and kept, such as `Cache(default_directory())` of
            `p2p_bench.cache`; None always inverts.
        repair: Put the source's pixels back outside the mask of the edit; True is `Repair()`, whose mask is
            the attention to the words that change.

    Returns:
        Images, latents, cost and heatmaps, the source first.

    Raises:
        P2PError: An argument cannot be used; the message says what to do.
        NonFiniteLatentError: The latents became NaN or infinite.
    """
    model = arguments.instance("model", model, DiffusionModel, "a model, as load_model gives it")
    prompts = arguments.texts("targets", targets)
    warn_never_seen(model.spec, (arguments.text("source", source), *prompts))
    controllers = arguments.controllers(named("controller", controller), len(prompts))
    method = _inversion(named("inversion", inversion))
    arguments.one_of("fit", fit, FITS)
    used = sampler_of(named("sampler", sampler), arguments.number("eta", eta))
    warn_of_steps(used, model.spec)
    cache = None if cache is None else arguments.instance("cache", cache, Cache, "a Cache")
    request = EditRequest(
        id="edit",
        source_prompt=arguments.text("source", source),
        targets=tuple(map(Target, prompts, controllers)),
        seed=arguments.seed(seed),
        noise=None if noise is None else arguments.noise(noise),
        image=None if image is None else as_source_image(image, model.spec.image_size, fit),
        inversion=DDIMInversion() if image is not None and method is None else method,
        inversion_prompt=optional(arguments.text, "inversion_prompt", inversion_prompt),
        repair=_repair(repair),
    )
    (result,) = run_edits(
        model,
        [request],
        steps=optional(arguments.whole, "steps", steps if steps is not None else used.steps),
        guidance=optional(arguments.number, "guidance", guidance if guidance is not None else used.guidance),
        stepper=used.stepper(),
        guidance_interval=used.guidance_interval,
        max_rows=budget_of(model, used.max_rows, cache),
        spacing=arguments.one_of("spacing", spacing if spacing is not None else used.spacing, SPACINGS),
        record=_record(model, record),
        truncate=arguments.flag("truncate", truncate),
        progress=progress_of(progress),
        cache=cache,
        whole=True,
    )
    raise_all([error for error in result.errors if error is not None])
    return result


def _inversion(given: Any) -> Inversion | None:
    if given is not None:
        arguments.instance("inversion", given, Inversion, "an inversion, such as DDIMInversion()")
    method: Inversion | None = given
    return method


def sampler_of(given: Any, eta: float) -> Sampler:
    """The sampler of a call; None is DDIM with so much noise.

    Raises:
        P2PError: It is none, or has no use for the noise.
    """
    if given is None:
        return DDIMSampler(eta=eta)
    arguments.instance("sampler", given, Sampler, "a sampler, such as EulerSampler()")
    if eta:
        raise P2PError("eta: it is DDIM's; give sampler=DDIMSampler(eta=...) or leave the sampler out")
    sampler: Sampler = given
    return sampler


def optional(check: Callable[[str, Any], T], name: str, value: Any) -> T | None:
    """A value once it is checked; None stays."""
    return None if value is None else check(name, value)


def progress_of(given: Any) -> Progress | None:
    """What is told of the steps of a call; raises a `ConfigError` where it cannot be called."""
    if given is not None and not callable(given):
        raise arguments.wrong("progress", "a function of (steps taken, steps in all)", given)
    progress: Progress | None = given
    return progress


def _repair(value: Any) -> Repair | None:
    if isinstance(value, Repair):
        return value
    return Repair() if arguments.flag("repair", value) else None


def _record(model: DiffusionModel, value: Any) -> bool | Record:
    if value is None:
        return can_record(model)
    return value if isinstance(value, Record) else arguments.flag("record", value)
