"""StyleDiffusion as its released script does it: modules, optimiser and maps are written out.

One image at a time; no code of the package but the networks.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tests.controllers.released_loops import Released

PUBLISHED: Mapping[str, Any] = {
    "guidance": 7.5, "inner_steps": 100, "rate": 1e-2, "epsilon": 1e-5, "attention": 1.0, "slope": 0.01,
    "decay": 0.1, "annealed": 100.0, "eased": 2e-5, "middle": False, "seed": 1234, "keys": False,
}  # fmt: skip
"""What the script has; the last three say what it does not do."""


class Sites:
    """What all layers share while they attend: the mapped text, and the maps that they leave."""

    def __init__(self) -> None:
        self.mapped: Any = None
        self.maps: dict[str, Tensor] = {}
        self.edits: Any = None


class Layer:
    """Attention of one layer with its map written out."""

    def __init__(self, name: str, sites: Sites, keys: bool) -> None:
        self.name, self.sites, self.keys = name, sites, keys

    def __call__(self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Any = None, **_: Any) -> Any:
        is_cross = encoder_hidden_states is not None
        context = encoder_hidden_states if is_cross else hidden_states
        mapped = context
        if is_cross and self.sites.mapped is not None:
            mapped = self.sites.mapped(context)
        q, k, v = attn.to_q(hidden_states), attn.to_k(mapped if self.keys else context), attn.to_v(mapped)
        q, k, v = (attn.head_to_batch_dim(one) for one in (q, k, v))
        probs = (attn.scale * q @ k.transpose(1, 2)).softmax(-1)
        self.sites.maps[self.name] = probs
        if self.sites.edits is not None:
            probs = self.sites.edits(probs, is_cross)
        return attn.to_out[0](attn.batch_to_head_dim(probs @ v))


@contextmanager
def written_out(unet: Any, keys: bool = False) -> Iterator[Sites]:
    before, sites = dict(unet.attn_processors), Sites()
    unet.set_attn_processor({name: Layer(name, sites, keys) for name in before})
    try:
        yield sites
    finally:
        unet.set_attn_processor(before)


class M(nn.Module):
    """The mapping network of one step."""

    def __init__(self, tokens: int, columns: int, slope: float) -> None:
        super().__init__()
        out = 2 * columns
        block = nn.Sequential(nn.Conv1d(out, out, 1), nn.BatchNorm1d(out), nn.LeakyReLU(slope))
        self.layers = nn.ModuleDict(
            {"conv_start": nn.Conv1d(tokens, out, 1), "conv_block": block, "conv_end": nn.Conv1d(out, out, 1)}
        )
        self.columns = columns
        self.train()

    def forward(self, context: Tensor, embedding: Tensor) -> Tensor:
        for layer in self.layers.values():
            embedding = layer(embedding)
        return context * embedding[:, : self.columns] + embedding[:, self.columns :]


class ReleasedStyle(Released):
    """Training and editing."""

    def trained(self, x: Tensor, prompt: str, tokens: Tensor, **said: Any) -> dict[str, Any]:
        """Latents there, networks of all steps, losses, and the latents that training ends at."""
        one = {**PUBLISHED, **said}
        text, empty = self.told(prompt), self.told("")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(one["seed"])
            network = M(tokens.shape[1], text.shape[1], one["slope"]).double()
        unet = self.model.unet
        path, kept, states = [x], [], []
        losses: list[list[float]] = []
        with written_out(unet, one["keys"]) as sites:
            with torch.no_grad():
                for t in reversed(self.timesteps):
                    eps = self.epsilon(path[-1], t, text)
                    kept.append(self.compared(sites, one["middle"]))
                    path.append(self.moved(path[-1], eps, self.before(t), self.alphas[t]))
            kept.append(kept[-1])
            x = path[-1]
            for step, t in enumerate(self.timesteps):
                i = step * 50 / self.steps
                optimiser = torch.optim.Adam(network.parameters(), lr=one["rate"] * (1 - i / one["annealed"]))
                sites.mapped = None
                with torch.no_grad():
                    without = self.epsilon(x, t, empty)
                sites.mapped = lambda context: network(context, tokens)
                losses.append([])
                for _ in range(math.ceil(one["inner_steps"] * math.exp(-one["decay"] * i))):
                    eps = without + one["guidance"] * (self.epsilon(x, t, text) - without)
                    made = self.moved(x, eps, self.alphas[t], self.before(t))
                    loss = nn.functional.mse_loss(made, path[-2 - step])
                    for a, b in zip(
                        kept[self.steps - step], self.compared(sites, one["middle"]), strict=True
                    ):
                        loss = loss + one["attention"] * nn.functional.mse_loss(a, b)
                    optimiser.zero_grad()
                    loss.backward()
                    optimiser.step()
                    losses[-1].append(loss.item())
                    if loss.item() < one["epsilon"] + i * one["eased"]:
                        break
                states.append({name: value.clone() for name, value in network.state_dict().items()})
                with torch.no_grad():
                    eps = without + one["guidance"] * (self.epsilon(x, t, text) - without)
                    x = self.moved(x, eps, self.alphas[t], self.before(t))
        return {"path": path, "states": states, "losses": losses, "end": x, "network": network}

    def compared(self, sites: Sites, middle: bool) -> list[Tensor]:
        """Cross-attention maps of 4 x 4 of the encoder and the decoder."""
        places = ("down", "up", "mid") if middle else ("down", "up")
        return [
            probs
            for place in places
            for name, probs in sites.maps.items()
            if name.startswith(place) and "attn2" in name and probs.shape[1] == 4**2
        ]

    @torch.no_grad()
    def edited(
        self,
        trained: Mapping[str, Any],
        tokens: Tensor,
        prompts: Sequence[str],
        *,
        guidance: float = 7.5,
        tau_v: float = 0.5,
        cross: float = 0.6,
        self_attn: float = 0.6,
        tau_u: float = 0.0,
        uncond: bool = False,
    ) -> Tensor:
        """Latents of source and target: words replaced in place, and self-attention up to 4 x 4.

        Args:
            uncond: Whether passes without the prompt are mapped too, for a reference that is wrong.
        """
        network, text, empty = trained["network"], self.told(*prompts), self.told("", "")
        x = torch.cat([trained["path"][-1]] * 2)

        def mapped(context: Tensor) -> Tensor:
            rows = list(context.chunk(2))
            rows[0] = network(rows[0], tokens)
            if step < self.steps * tau_v:
                rows[1] = network(rows[1], tokens)
            return torch.cat(rows)

        def edits(probs: Tensor, is_cross: bool) -> Tensor:
            base, own = probs.chunk(2)
            if is_cross:
                return torch.cat([base, base if step < int(cross * (self.steps + 1)) else own])
            injected = step < int(self_attn * self.steps) and own.shape[2] <= 4**2
            return torch.cat([base, base if injected else own])

        def replace_uncond(probs: Tensor, is_cross: bool) -> Tensor:
            base, own = probs.chunk(2)
            injected = not is_cross and step < int(tau_u * self.steps) and own.shape[2] <= 4**2
            return torch.cat([base, base if injected else own])

        with written_out(self.model.unet) as sites:
            for step, t in enumerate(self.timesteps):
                network.load_state_dict(trained["states"][step])
                sites.mapped, sites.edits = mapped if uncond else None, replace_uncond
                u = self.epsilon(x, t, empty)
                sites.mapped, sites.edits = mapped, edits
                c = self.epsilon(x, t, text)
                x = self.moved(x, u + guidance * (c - u), self.alphas[t], self.before(t))
        return x
