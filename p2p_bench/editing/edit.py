"""One edit, in one call."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from p2p_bench.cache import Cache
from p2p_bench.controllers import Controller, NoControl
from p2p_bench.data.images import Fit
from p2p_bench.editing.attention import Record
from p2p_bench.editing.images import ImageLike, as_source_image
from p2p_bench.editing.repair import Repair
from p2p_bench.editing.request import EditRequest, Target, raise_all
from p2p_bench.editing.result import EditResult
from p2p_bench.editing.run import Progress, can_record, run_edits
from p2p_bench.errors import P2PError
from p2p_bench.inversion import DDIMInversion, Inversion
from p2p_bench.models import DiffusionModel
from p2p_bench.models.timesteps import Spacing
from p2p_bench.pinned import with_pinned_settings
from p2p_bench.sampling import DDIM


@with_pinned_settings
def edit(
    model: DiffusionModel,
    source: str,
    targets: str | Sequence[str],
    controller: Controller | Sequence[Controller] | None = None,
    *,
    image: ImageLike | None = None,
    fit: Fit | None = None,
    inversion: Inversion | None = None,
    inversion_prompt: str | None = None,
    noise: Float[Tensor, "..."] | None = None,
    seed: int = 0,
    steps: int | None = None,
    guidance: float | None = None,
    eta: float = 0.0,
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
        controller: How the source's attention is used, for all targets or one per target; None is
            `NoControl`, plain generation from the same noise.
        image: A real source image: a tensor (3, h, w) or (1, 3, h, w) in [0, 1], a PIL image or a path.
        fit: What is done with an image that has not the model's size: "crop" to the centre and resize, "pad",
            "resize" (stretch) or "error"; None is "error" for a tensor and "crop" for the others.
        inversion: How the start is found from `image`; None is `DDIMInversion()`.
        inversion_prompt: What the image is inverted with, where that is not `source`; may be empty.
        noise: Start noise (c, h, w) or (1, c, h, w) instead of the seed's.
        seed: Start noise is what diffusers draws from `torch.Generator("cpu").manual_seed(seed)`.
        steps: Number of denoising steps; None is the model's own.
        guidance: Classifier-free guidance scale; 1 takes no unconditional pass; None is the model's own.
        eta: Share of DDPM's noise added by each step, in [0, 1].
        spacing: Layout of the timesteps: "leading", "trailing" or "linspace", see `TimestepLayout`; None is
            the model's own.
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
    prompts = [targets] if isinstance(targets, str) else list(targets)
    controllers = _controllers(controller, len(prompts))
    if inversion is not None and image is None:
        raise P2PError("inversion: there is no image to invert; give image=..., or leave the inversion out")
    request = EditRequest(
        id="edit",
        source_prompt=source,
        targets=tuple(map(Target, prompts, controllers)),
        seed=seed,
        noise=None if noise is None else _noise(noise),
        image=None if image is None else as_source_image(image, model.spec.image_size, fit),
        inversion=DDIMInversion() if image is not None and inversion is None else inversion,
        inversion_prompt=inversion_prompt,
        repair=Repair() if repair is True else repair or None,
    )
    (result,) = run_edits(
        model,
        [request],
        steps=steps,
        guidance=guidance,
        stepper=DDIM(eta),
        spacing=spacing,
        record=can_record(model) if record is None else record,
        truncate=truncate,
        progress=progress,
        cache=cache,
    )
    raise_all([error for error in result.errors if error is not None])
    return result


def _controllers(controller: Controller | Sequence[Controller] | None, count: int) -> list[Controller]:
    if controller is None or isinstance(controller, Controller):
        return [controller or NoControl()] * count
    if len(controller) != count:
        raise P2PError(f"controller: expected one, or one per target ({count}), got {len(controller)}")
    return list(controller)


def _noise(noise: Tensor) -> Float[Tensor, "c h w"]:
    if noise.ndim == 4 and len(noise) == 1:
        noise = noise[0]
    if noise.ndim != 3 or not noise.is_floating_point():
        raise P2PError(
            "noise: expected a float tensor (c, h, w) or (1, c, h, w), "
            f"got {noise.dtype} {tuple(noise.shape)}"
        )
    return noise
