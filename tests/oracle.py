"""The oracle: Prompt-to-Prompt with every attention map written out, edited and multiplied by the values.

It shares no code with the folded processors: maps of all rows are made by an explicit softmax and edited by
the published formulas. Tests compare the folded processors with it; benchmarks use it as the baseline.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor

from p2p_bench.attention.sites import Site, unet_sites


class MapEdit(Protocol):
    """Edits the map of one target row: (step, site, A_s, A_t) -> A_edit, all (heads, pixels, columns)."""

    def __call__(self, step: int, site: Site, A_s: Tensor, A_t: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class MapRow:
    """Places a map edit at rows of the network batch."""

    row: int
    source: int
    edit: MapEdit


@dataclass(frozen=True)
class Published:
    """Prompt-to-Prompt as published: a cross edit, and self-attention injection, during the first steps.

    Attributes:
        cross: One of the formulas below, called with (A_s, A_t).
        cross_stop: Number of steps with the cross edit.
        self_stop: Number of steps with self-attention injection.
        self_fraction: Injection at maps of at most this share of the latent side.
    """

    cross: Any
    cross_stop: int
    self_stop: int
    self_fraction: float

    def __call__(self, step: int, site: Site, A_s: Tensor, A_t: Tensor) -> Tensor:
        if site.kind == "cross":
            return self.cross(A_s, A_t) if step < self.cross_stop else A_t
        return A_s if step < self.self_stop and site.fraction <= self.self_fraction else A_t


@dataclass(frozen=True)
class Swap:
    """Replacement: source maps through a mapper (columns x columns)."""

    mapper: Tensor

    def __call__(self, A_s: Tensor, A_t: Tensor) -> Tensor:
        return torch.einsum("hpw,wn->hpn", A_s, self.mapper.to(A_s))


@dataclass(frozen=True)
class Refinement:
    """Refinement: gathered source columns where `alphas` is 1, own columns where it is 0."""

    mapper: Tensor
    alphas: Tensor

    def __call__(self, A_s: Tensor, A_t: Tensor) -> Tensor:
        alphas = self.alphas.to(A_s)
        return A_s[:, :, self.mapper] * alphas + A_t * (1 - alphas)


@dataclass(frozen=True)
class Scaling:
    """Re-weighting: columns of an inner edit's result, or of the source, times `equalizer`."""

    equalizer: Tensor
    inner: Any = None

    def __call__(self, A_s: Tensor, A_t: Tensor) -> Tensor:
        base = A_s if self.inner is None else self.inner(A_s, A_t)
        return base * self.equalizer.to(A_s)


@dataclass(frozen=True)
class Columns:
    """Any edit given by its matrices: A_s L + A_t R."""

    L: Tensor
    R: Tensor

    def __call__(self, A_s: Tensor, A_t: Tensor) -> Tensor:
        return A_s @ self.L.to(A_s) + A_t @ self.R.to(A_t)


@dataclass(frozen=True)
class Timed:
    """A cross edit behind a gate, as released: `edit * alpha + own * (1 - alpha)`.

    Attributes:
        edit: One of the formulas above, called with (A_s, A_t).
        alpha: The gate, (steps, columns).
    """

    edit: Any
    alpha: Tensor


@dataclass(frozen=True)
class Injected:
    """The source's self-attention maps in some steps, at maps of at most `fraction` of the latent side."""

    steps: range
    fraction: float


@dataclass(frozen=True)
class Mutual:
    """The source's self-attention keys and values in some steps, at the sites named (MasaCtrl)."""

    steps: range
    sites: frozenset[str]


@dataclass(frozen=True)
class Chain:
    """Edits one after the other; of those of self-attention the last that applies to a site counts."""

    parts: Sequence[Timed | Injected | Mutual]

    def __call__(self, step: int, site: Site, A_s: Tensor, A_t: Tensor) -> Tensor:
        if site.kind == "self":
            return A_s if isinstance(self._rule(step, site), Injected) else A_t
        edited = A_t
        for part in self.parts:
            if isinstance(part, Timed):
                alpha = part.alpha[step].to(A_t)
                edited = part.edit(A_s, edited) * alpha + edited * (1 - alpha)
        return edited

    def takes_keys_and_values(self, step: int, site: Site) -> bool:
        return isinstance(self._rule(step, site), Mutual)

    def _rule(self, step: int, site: Site) -> Timed | Injected | Mutual | None:
        for part in reversed(self.parts):
            if isinstance(part, Injected) and step in part.steps and 2.0**-site.level <= part.fraction:
                return part
            if isinstance(part, Mutual) and step in part.steps and site.name in part.sites:
                return part
        return None


@dataclass
class MaterialisedAttnProcessor:
    """Attention with all maps written out; follows diffusers' `AttnProcessor`.

    Attributes:
        site: Where it is installed.
        edits: What is done to which row.
        step: The denoising step.
        saved: Receives the edited maps by site name, (rows, heads, pixels, columns); None keeps none.
    """

    site: Site
    edits: Sequence[MapRow] = ()
    step: int = 0
    saved: dict[str, Tensor] | None = field(default=None, repr=False)

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        **ignored: Any,
    ) -> Tensor:
        residual = hidden_states
        if attn.spatial_norm is not None:
            hidden_states = attn.spatial_norm(hidden_states, temb)
        if hidden_states.ndim == 4:
            hidden_states = hidden_states.flatten(2).transpose(1, 2)
        rows = len(hidden_states)
        if attn.group_norm is not None:
            hidden_states = attn.group_norm(hidden_states.transpose(1, 2)).transpose(1, 2)
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        if encoder_hidden_states is not None and attn.norm_cross:
            context = attn.norm_encoder_hidden_states(context)
        mask = attn.prepare_attention_mask(attention_mask, context.shape[1], rows)

        query, key, value = (
            states.view(rows, -1, attn.heads, states.shape[-1] // attn.heads).transpose(1, 2)
            for states in (attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context))
        )
        query = query if attn.norm_q is None else attn.norm_q(query)
        key = key if attn.norm_k is None else attn.norm_k(key)
        key, value = self._with_mutual(key), self._with_mutual(value)
        scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
        if mask is not None:
            scores = scores + mask.view(rows, attn.heads, -1, mask.shape[-1])
        maps = scores.softmax(-1)
        edited = maps.clone() if self.edits else maps
        for place in self.edits:
            edited[place.row] = place.edit(self.step, self.site, maps[place.source], maps[place.row])
        if self.saved is not None:
            self.saved[self.site.name] = edited

        out = (edited @ value).transpose(1, 2).flatten(2)
        out = attn.to_out[1](attn.to_out[0](out))
        if residual.ndim == 4:
            out = out.transpose(-1, -2).reshape(residual.shape)
        out = out + residual if attn.residual_connection else out
        return out / attn.rescale_output_factor

    def _with_mutual(self, states: Tensor) -> Tensor:
        """Keys or values, the source's in place of a target's where its edit says so."""
        changed = states.clone()
        for place in self.edits:
            if isinstance(place.edit, Chain) and place.edit.takes_keys_and_values(self.step, self.site):
                changed[place.row] = states[place.source]
        return changed


@contextmanager
def materialised_attention(
    unet: Any, edits: Sequence[MapRow], step: int = 0, saved: dict[str, Tensor] | None = None
) -> Iterator[dict[str, MaterialisedAttnProcessor]]:
    """Install the oracle at every site of a U-Net; the old processors come back on exit.

    Yields:
        The processors by site name; set `.step` on each to move on.
    """
    before = dict(unet.attn_processors)
    oracles = {site.name: MaterialisedAttnProcessor(site, edits, step, saved) for site in unet_sites(unet)}
    unet.set_attn_processor({**before, **{f"{name}.processor": oracle for name, oracle in oracles.items()}})
    try:
        yield oracles
    finally:
        unet.set_attn_processor(before)


def run_materialised(
    unet: Any,
    latents: Tensor,
    timestep: int,
    embeddings: Tensor,
    edits: Sequence[MapRow],
    step: int,
    **options: Any,
) -> tuple[Tensor, dict[str, Tensor]]:
    """One forward pass of a U-Net with all maps written out: its output, and the edited maps by site."""
    saved: dict[str, Tensor] = {}
    with torch.no_grad(), materialised_attention(unet, edits, step, saved):
        return unet(latents, timestep, embeddings, **options).sample, saved


def word_pieces(text: str, tokenizer: Any) -> list[list[int]]:
    """Columns of each space-separated piece; for tokenizers that never merge across spaces."""
    columns, first = [], 1
    for piece in text.split(" "):
        length = len(tokenizer(piece).input_ids) - 2
        columns.append(list(range(first, first + length)))
        first += length
    return columns


def swap_mapper(source: str, target: str, tokenizer: Any, width: int, as_released: bool) -> Tensor:
    """The word-swap mapper of the released code, walked column by column; its slip mended on request."""
    changed = [
        (old, new)
        for old_word, new_word, old, new in zip(
            source.split(" "),
            target.split(" "),
            word_pieces(source, tokenizer),
            word_pieces(target, tokenizer),
            strict=True,
        )
        if old_word != new_word
    ]
    mapper = torch.zeros(width, width, dtype=torch.float64)
    i = j = 0
    while i < width and j < width:
        if changed and changed[0][0][0] == i:
            old, new = changed.pop(0)
            if len(old) == len(new):
                for a, b in zip(old, new, strict=True):
                    mapper[a, b] = 1
            else:
                for a in old:
                    for b in new:
                        mapper[a, b] = 1 / len(new)
            i, j = i + len(old), j + len(new)
            continue
        mapper[j if as_released and not changed else i, j] = 1
        i, j = i + 1, j + 1
    return mapper


def refinement_mapper(source: Sequence[int], target: Sequence[int], width: int) -> tuple[Tensor, Tensor]:
    """The refinement mapper of the released code, from encoded ids (begin and end included).

    Returns:
        For each target column its source column (-1: none), and alphas (0: none).
    """
    score = torch.zeros(len(source) + 1, len(target) + 1, dtype=torch.int64)
    trace = torch.zeros_like(score)
    trace[0, 1:] = 1
    trace[1:, 0] = 2
    for i in range(1, len(source) + 1):
        for j in range(1, len(target) + 1):
            left, up = score[i, j - 1], score[i - 1, j]
            diagonal = score[i - 1, j - 1] + (1 if source[i - 1] == target[j - 1] else -1)
            score[i, j] = max(left, up, diagonal)
            trace[i, j] = 1 if score[i, j] == left else 2 if score[i, j] == up else 3
    mapper = torch.arange(width)
    i, j = len(source), len(target)
    while i > 0 or j > 0:
        move = int(trace[i, j])
        i, j = i - (move != 1), j - (move != 2)
        if move != 2:
            mapper[j] = i if move == 3 else -1
    return mapper, mapper.ne(-1).double()


def released_gate(
    schedules: float | tuple[float, float] | dict[str, Any],
    target: str,
    tokenizer: Any,
    width: int,
    steps: int,
) -> Tensor:
    """The cross schedule of the released code, (steps, columns): entries for `steps + 1`, words in order."""
    if not isinstance(schedules, dict):
        schedules = {"default_": schedules}
    schedules = {"default_": (0.0, 1.0), **schedules}
    alpha = torch.zeros(steps + 1, width, dtype=torch.float64)
    pieces = dict(zip(target.split(" "), word_pieces(target, tokenizer), strict=True))
    for word, bounds in schedules.items():
        start, end = bounds if isinstance(bounds, tuple) else (0.0, bounds)
        columns = list(range(width)) if word == "default_" else pieces[word]
        first, stop = int(start * len(alpha)), int(end * len(alpha))
        alpha[:first, columns] = 0
        alpha[first:stop, columns] = 1
        alpha[stop:, columns] = 0
    return alpha[:steps]


def script_mapper(script: Sequence[tuple[str, str]], tokenizer: Any, width: int) -> tuple[Tensor, Tensor]:
    """The map of a swap written out by hand: what each phrase of the target takes, in order.

    Args:
        script: (source phrase, target phrase); "" on the left keeps the target's own columns, "" on the right
            drops the source's.

    Returns:
        The mapper (columns x columns), and alphas (0: own columns).
    """
    count = lambda phrase: len(tokenizer(phrase).input_ids) - 2 if phrase else 0  # noqa: E731  # a formula
    mapper, alphas = torch.zeros(width, width, dtype=torch.float64), torch.ones(width, dtype=torch.float64)
    mapper[0, 0] = 1
    i = j = 1
    for old, new in script:
        n, m = count(old), count(new)
        if not n:
            alphas[j : j + m] = 0
        elif n == m:
            mapper[range(i, i + n), range(j, j + m)] = 1
        elif m:
            mapper[i : i + n, j : j + m] = 1 / m
        i, j = i + n, j + m
    while i < width and j < width:
        mapper[i, j] = 1
        i, j = i + 1, j + 1
    return mapper, alphas
