"""Pictures of prompts, in one call."""

from collections.abc import Sequence

from p2p_bench.app.api import named
from p2p_bench.app.edit import optional, progress_of, sampler_of
from p2p_bench.editing import arguments
from p2p_bench.editing.budget import budget_of
from p2p_bench.editing.generated import Generated
from p2p_bench.editing.request import EditRequest, raise_all
from p2p_bench.editing.run import Progress, run_edits
from p2p_bench.errors import ConfigError
from p2p_bench.models import DiffusionModel
from p2p_bench.models.timesteps import SPACINGS, Spacing
from p2p_bench.models.vocabulary import warn_never_seen
from p2p_bench.pinned import with_pinned_settings
from p2p_bench.sampling import Sampler
from p2p_bench.sampling.sampler import warn_of_steps


@with_pinned_settings
def generate(
    model: DiffusionModel,
    prompts: str | Sequence[str],
    *,
    count: int = 1,
    seed: int = 0,
    steps: int | None = None,
    guidance: float | None = None,
    eta: float = 0.0,
    sampler: Sampler | str | None = None,
    spacing: Spacing | None = None,
    truncate: bool = False,
    progress: Progress | None = None,
) -> Generated:
    """Generates pictures of prompts, without any edit.

    A picture is the source that `p2p_bench.edit` generates for its prompt with the same settings and seed,
    beyond rounding, however many are asked for at once.

    Args:
        model: A loaded model.
        prompts: What is to be shown.
        count: Pictures of each prompt, by the seeds `seed`, `seed + 1` and so on.
        seed: In [0, 2**64). Start noise is what diffusers draws from a generator of the CPU with this seed.
        steps: See `p2p_bench.edit`, as for the rest.
        guidance: Classifier-free guidance scale; 1 takes no unconditional pass; None is the model's own.
        eta: Share of DDPM's noise added by each step of DDIM, in [0, 1].
        sampler: A sampler, or the name of a file in `conf/sampler`; None is DDIM.
        spacing: Layout of the timesteps; None is the model's own.
        truncate: Cut prompts that are too long instead of refusing them.
        progress: Called with the steps taken and their number after each step.

    Returns:
        The pictures: those of the first prompt by their seeds, then those of the next.

    Raises:
        P2PError: An argument cannot be used; the message says what to do.
        NonFiniteLatentError: The latents became NaN or infinite.
    """
    model = arguments.instance("model", model, DiffusionModel, "a model, as load_model gives it")
    texts = arguments.texts("prompts", prompts)
    if not texts:
        raise ConfigError("prompts: expected at least one, got none")
    number = arguments.whole("count", count)
    if number < 1:
        raise ConfigError(f"count: expected at least 1, got {number}")
    first = arguments.seed(seed)
    seeds = [arguments.seed(first + place) for place in range(number)]
    warn_never_seen(model.spec, texts)
    used = sampler_of(named("sampler", sampler), arguments.number("eta", eta))
    warn_of_steps(used, model.spec)
    requests = [
        EditRequest(id=f"{prompt} (seed {one})", source_prompt=prompt, targets=(), seed=one, alone=True)
        for prompt in texts
        for one in seeds
    ]
    results = run_edits(
        model,
        requests,
        steps=optional(arguments.whole, "steps", steps if steps is not None else used.steps),
        guidance=optional(arguments.number, "guidance", guidance if guidance is not None else used.guidance),
        stepper=used.stepper(),
        guidance_interval=used.guidance_interval,
        spacing=arguments.one_of("spacing", spacing if spacing is not None else used.spacing, SPACINGS),
        max_rows=budget_of(model, used.max_rows, None),
        truncate=arguments.flag("truncate", truncate),
        progress=progress_of(progress),
        whole=True,
    )
    raise_all([error for result in results for error in result.errors if error is not None])
    return Generated.of(results, [request.seed for request in requests])
