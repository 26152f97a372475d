"""MasaCtrl and plug-and-play with DDIM and direct inversion, written out as the released scripts do it.

Batches, injections in place and the order of things are theirs; no code of the package but the networks.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

Change = Callable[[Tensor, Tensor, Tensor], None]
"""Changes queries, keys and values of all rows in place."""


class WrittenOut:
    """Self-attention of one layer with maps written out, changed by `change` at steps that are on."""

    def __init__(self, change: Change) -> None:
        self.change = change
        self.on = False

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Any = None, **_: Any
    ) -> Tensor:
        assert encoder_hidden_states is None
        q, k, v = attn.to_q(hidden_states), attn.to_k(hidden_states), attn.to_v(hidden_states)
        if self.on:
            self.change(q, k, v)
        q, k, v = (x.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for x in (q, k, v))
        maps = (torch.einsum("bhid,bhjd->bhij", q, k) * attn.scale).softmax(-1)
        out = torch.einsum("bhij,bhjd->bhid", maps, v).transpose(1, 2).flatten(2)
        made: Tensor = attn.to_out[0](out)
        return made


@contextmanager
def changed(unet: Any, layers: Sequence[str], change: Change) -> Iterator[list[WrittenOut]]:
    """Self-attention of some transformers, such as "up_blocks.2.attentions.0", changed for a while."""
    before = dict(unet.attn_processors)
    made = {f"{layer}.transformer_blocks.0.attn1.processor": WrittenOut(change) for layer in layers}
    assert set(made) <= set(before)
    unet.set_attn_processor({**before, **made})
    try:
        yield list(made.values())
    finally:
        unet.set_attn_processor(before)


class Released:
    """DDIM there and back on a model.

    Args:
        model: One of `UNetCheckpoint`, with the layout of Stable Diffusion's pipeline.
        steps: Number of steps.
    """

    def __init__(self, model: Any, steps: int) -> None:
        self.model, self.steps = model, steps
        self.alphas = model.schedule.alphas_cumprod
        self.timesteps = [1 + (steps - 1 - step) * (1000 // steps) for step in range(steps)]

    def told(self, *prompts: str) -> Tensor:
        return torch.cat([self.model.encode_prompts([prompt]) for prompt in prompts])

    def epsilon(self, x: Tensor, t: int, text: Tensor) -> Tensor:
        out: Tensor = self.model.unet(x, t, encoder_hidden_states=text).sample
        if self.model.schedule.prediction_type == "v_prediction":
            out = self.alphas[t].sqrt() * out + (1 - self.alphas[t]).sqrt() * x
        return out

    def moved(self, x: Tensor, eps: Tensor, here: Tensor, there: Tensor) -> Tensor:
        x_0 = (x - (1 - here).sqrt() * eps) / here.sqrt()
        return there.sqrt() * x_0 + (1 - there).sqrt() * eps

    def before(self, t: int) -> Tensor:
        """alpha_bar of the level that a step at `t` leads to."""
        made: Tensor = self.alphas[max(t - 1000 // self.steps, 0)]
        return made

    def inverted(self, x: Tensor, prompt: str, guidance: float = 1.0) -> list[Tensor]:
        """Latents from the image to the noise."""
        path = [x]
        for t in reversed(self.timesteps):
            without, with_ = self.epsilon(torch.cat([path[-1]] * 2), t, self.told("", prompt)).chunk(2)
            eps = without + guidance * (with_ - without)
            path.append(self.moved(path[-1], eps, self.before(t), self.alphas[t]))
        return path

    def sampled(self, x: Tensor, prompt: str) -> list[Tensor]:
        """Latents after each step without guidance."""
        path = []
        for t in self.timesteps:
            x = self.moved(x, self.epsilon(x, t, self.told(prompt)), self.alphas[t], self.before(t))
            path.append(x)
        return path

    @torch.no_grad()
    def plug_and_play(
        self,
        noisy: Sequence[Tensor],
        target: str,
        layers: Sequence[str],
        *,
        negative: str = "",
        told: str = "",
        guidance: float = 7.5,
        features: float = 0.8,
        self_attn: float = 0.5,
        factor: float = 1.0,
        heed: float = 1.0,
    ) -> Tensor:
        """The edited latents.

        Args:
            noisy: The source's latents, that of the first step last.
            layers: Whose self-attention is injected.
            told: What the source is told.
            factor: What features are multiplied with, for a reference that is wrong.
            heed: What injected queries are multiplied with, likewise.
        """

        def inject(q: Tensor, k: Tensor, v: Tensor) -> None:
            q[1], q[2] = heed * q[0], heed * q[0]
            k[1], k[2] = k[0].clone(), k[0].clone()

        def hook(module: Any, args: Any, hidden: Tensor) -> Tensor:
            if step < int(self.steps * features):
                hidden[1], hidden[2] = factor * hidden[0], factor * hidden[0]
            return hidden

        x, step = noisy[-1], 0
        text = self.told(told, negative, target)
        with ExitStack() as stack:
            made = stack.enter_context(changed(self.model.unet, layers, inject))
            convolution = self.model.unet.up_blocks[1].resnets[1].conv2
            stack.callback(convolution.register_forward_hook(hook).remove)
            for step, t in enumerate(self.timesteps):  # the hook reads it
                for processor in made:
                    processor.on = step < int(self.steps * self_attn)
                out = self.epsilon(torch.cat([noisy[-1 - step], x, x]), t, text)
                _, without, with_ = out.chunk(3)
                x = self.moved(x, without + guidance * (with_ - without), self.alphas[t], self.before(t))
        return x

    @torch.no_grad()
    def masactrl(
        self,
        start: Tensor,
        target: str,
        layers: Sequence[str],
        first_step: int,
        *,
        source: str = "",
        guidance: float = 7.5,
        pivot: Sequence[Tensor] | None = None,
        factor: float = 1.0,
    ) -> Tensor:
        """Latents of source and edit.

        Args:
            start: What both start from.
            layers: Whose self-attention is mutual.
            first_step: From which on it is.
            source: What the source is told.
            pivot: The inverted path that the source is put back on; None leaves it alone.
            factor: What keys are multiplied with, for a reference that is wrong.
        """

        def mutual(q: Tensor, k: Tensor, v: Tensor) -> None:
            for first in (0, 2):
                k[first + 1], v[first + 1] = factor * k[first], v[first].clone()

        x = torch.cat([start, start])
        text = self.told("", "", source, target)
        with changed(self.model.unet, layers, mutual) as made:
            for step, t in enumerate(self.timesteps):
                for processor in made:
                    processor.on = step >= first_step
                without, with_ = self.epsilon(torch.cat([x, x]), t, text).chunk(2)
                x = self.moved(x, without + guidance * (with_ - without), self.alphas[t], self.before(t))
                if pivot is not None:
                    x = torch.cat([x[:1] + (pivot[len(pivot) - 2 - step] - x[:1]), x[1:]])
        return x
