"""An image and an instruction, in one call."""

from collections.abc import Sequence

from p2p_bench.app.api import named
from p2p_bench.data.images import FITS, Fit
from p2p_bench.editing import arguments
from p2p_bench.editing.budget import budget_of
from p2p_bench.editing.images import ImageLike, as_source_image
from p2p_bench.editing.instruct import run_instructions
from p2p_bench.editing.request import EditRequest, Target, raise_all
from p2p_bench.editing.result import EditResult
from p2p_bench.editing.run import Progress
from p2p_bench.errors import ConfigError
from p2p_bench.guidance import EVERY_STEP
from p2p_bench.models import DiffusionModel
from p2p_bench.sampling import Sampler
from p2p_bench.sampling.sampler import warn_of_steps


def instruct(
    model: DiffusionModel,
    image: ImageLike,
    instructions: str | Sequence[str],
    *,
    image_guidance: float = 1.5,
    guidance: float | None = None,
    seed: int = 0,
    steps: int | None = None,
    sampler: Sampler | str = "euler_ancestral",
    fit: Fit | None = None,
    truncate: bool = False,
    progress: Progress | None = None,
) -> EditResult:
    """Edits an image by instructions, as InstructPix2Pix does (arXiv 2211.09800).

    Args:
        model: A loaded model that is shown images, such as `load_model("instruct_pix2pix")`.
        image: See `p2p_bench.edit`.
        instructions: What is to be changed; each is an edit of the image, from the same noise.
        image_guidance: Guidance scale by the image, at least 0; higher keeps more of it.
        guidance: Guidance scale by the instruction; None is the model's own.
        seed: In [0, 2**64).
        steps: Number of denoising steps; None is the sampler's, or else the model's own.
        sampler: A sampler, or the name of a file in `conf/sampler`.
        fit: See `p2p_bench.edit`.
        truncate: Cut instructions that are too long instead of refusing them.
        progress: Called with the steps taken and their number after each step.

    Returns:
        The image and its edits, in this order, and what they cost.

    Raises:
        P2PError: An argument cannot be used, or an edit cannot be made; the message says what to do.
    """
    model = arguments.instance("model", model, DiffusionModel, "a model, as load_model gives it")
    used: Sampler = named("sampler", sampler)
    arguments.instance("sampler", used, Sampler, "a sampler, such as EulerSampler()")
    if used.guidance_interval not in (None, EVERY_STEP):
        raise ConfigError(
            "sampler.guidance_interval: edits by instruction are guided at every step; leave it at None"
        )
    warn_of_steps(used, model.spec)
    arguments.one_of("fit", fit, FITS)
    told = arguments.texts("instructions", instructions)
    request = EditRequest(
        id="edit",
        source_prompt="",
        targets=tuple(Target("", instruction=one) for one in told),
        seed=arguments.seed(seed),
        image=as_source_image(image, model.spec.image_size, fit),
    )
    (result,) = run_instructions(
        model,
        [request],
        image_guidance=arguments.number("image_guidance", image_guidance),
        steps=used.steps if steps is None else arguments.whole("steps", steps),
        guidance=used.guidance if guidance is None else arguments.number("guidance", guidance),
        stepper=used.stepper(),
        spacing=used.spacing,
        max_rows=budget_of(model, used.max_rows, None),
        truncate=arguments.flag("truncate", truncate),
        progress=progress,
    )
    raise_all([error for error in result.errors if error is not None])
    return result
