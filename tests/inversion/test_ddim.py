import pytest
import torch

import p2p_bench as p2p
from p2p_bench.errors import ConfigError, PromptError
from p2p_bench.inversion import DDIMInversion, NoInversion
from p2p_bench.inversion.base import read_sources
from p2p_bench.sampling import initial_noise
from tests.models.tiny import tiny_model

PROMPT = "a red circle on grass"


def images(count: int) -> torch.Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(2))


def test_round_trip_improves_with_steps() -> None:
    model = tiny_model()
    image = images(1)
    wanted = model.encode_images(image)[0]
    errors = []
    for steps in (10, 30, 90):
        result = p2p.edit(model, PROMPT, PROMPT, image=image, guidance=1.0, steps=steps)
        errors.append(float((result.latents[0] - wanted).square().mean().sqrt()))
        assert (result.inversion_rows, result.source_rows) == (steps, steps)
    assert errors[0] > 1.3 * errors[1] > 2 * errors[2]
    assert errors[2] < 0.5 * float(wanted.std())


def test_runs_the_ode_backward_as_written_out() -> None:
    model = tiny_model()
    (replay,) = DDIMInversion(guidance=3.0).invert(model, read_sources(model, images(1), [PROMPT]), 4)
    x = model.encode_images(images(1))
    text, empty = model.encode_prompts([PROMPT]), model.encode_prompts([""])
    alphas = model.schedule.alphas_cumprod
    with torch.no_grad():
        for step in range(4):
            t = 1 + 250 * step
            a_t, a_prev = alphas[t], alphas[max(t - 250, 0)]
            u, c = model.unet(torch.cat([x, x]), t, torch.cat([empty, text])).sample.chunk(2)
            eps = u + 3.0 * (c - u)
            x = a_t.sqrt() * (x - (1 - a_prev).sqrt() * eps) / a_prev.sqrt() + (1 - a_t).sqrt() * eps
    assert float((replay.start[0] - x[0]).abs().max()) <= 1e-10
    assert replay.unet_rows == 8


def test_images_of_a_batch_are_inverted_as_alone() -> None:
    model = tiny_model()
    prompts = [PROMPT, "a cat", "a dog in fog"]
    together = DDIMInversion().invert(model, read_sources(model, images(3), prompts), 3)
    for index, prompt in enumerate(prompts):
        (alone,) = DDIMInversion().invert(
            model, read_sources(model, images(3)[index : index + 1], [prompt]), 3
        )
        assert torch.allclose(together[index].start[0], alone.start[0], atol=1e-10)


def test_the_vae_bound_is_reported() -> None:
    model = tiny_model()
    image = images(1)[0]
    result = p2p.edit(model, PROMPT, "a blue circle on grass", p2p.Replace(), image=image, steps=2)
    assert result.vae_reconstruction is not None
    assert torch.allclose(
        result.vae_reconstruction, model.decode_latents(model.encode_images(image[None]))[0], atol=1e-6
    )
    assert p2p.edit(model, PROMPT, PROMPT, steps=1).vae_reconstruction is None


def test_inversions_by_name() -> None:
    model = tiny_model()
    options = {"image": images(1), "steps": 2, "guidance": 1.0}
    by_default = p2p.edit(model, PROMPT, PROMPT, **options)
    assert torch.equal(
        by_default.latents, p2p.edit(model, PROMPT, PROMPT, inversion="ddim", **options).latents
    )
    ignored = p2p.edit(model, PROMPT, PROMPT, inversion="none", seed=5, **options)
    generated = p2p.edit(model, PROMPT, PROMPT, seed=5, steps=2, guidance=1.0)
    assert torch.allclose(ignored.latents, generated.latents, atol=1e-10)
    assert ignored.inversion_rows == 0


def test_no_inversion_starts_from_each_seed() -> None:
    replays = NoInversion().invert(
        tiny_model(), read_sources(tiny_model(), images(2), [PROMPT] * 2, [4, 5]), 3
    )
    assert torch.equal(replays[1].start[0], initial_noise(5, (4, 8, 8)))
    assert not torch.equal(replays[0].start[0], replays[1].start[0])


def test_bad_input() -> None:
    with pytest.raises(ConfigError, match="guidance"):
        DDIMInversion(guidance=-1.0)
    with pytest.raises(PromptError, match="too long"):
        DDIMInversion().invert(
            tiny_model(), read_sources(tiny_model(), images(1), ["a mirror of mirrors and mirrors"]), 2
        )
