"""Every controller with the published formulas it must agree with, for any tokenizer and number of steps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import cos, pi
from typing import Any

import torch
from torch import Tensor

from p2p_bench.controllers import (
    ByEdit,
    Compose,
    Controller,
    InjectWords,
    MasaCtrl,
    NoControl,
    Ramp,
    Refine,
    Replace,
    Reweight,
    SelfAttention,
    notebook,
    paper,
    pie,
)
from tests.oracle import (
    Chain,
    Columns,
    Injected,
    Mutual,
    Refinement,
    Scaling,
    Swap,
    Timed,
    refinement_mapper,
    released_gate,
    script_mapper,
    swap_mapper,
    word_pieces,
)

SOURCE = "a red circle on grass"
SWAP = "a hexagon circle on sand"
LONG = "a small red circle on grass in fog"
SHORT = "a circle"
PHRASE = "a small blue square on the grass"
SCRIPT = [("a", "a"), ("red circle", "small blue square"), ("on", "on"), ("", "the"), ("grass", "grass")]


@dataclass(frozen=True)
class Setting:
    """What the formulas depend on, besides the prompts.

    Attributes:
        tokenizer: The tokenizer.
        width: Number of text columns.
        steps: Number of steps.
        self_fraction: The model's size limit.
        layers: Names of the self-attention sites in the order in which the network runs them.
    """

    tokenizer: Any
    width: int
    steps: int
    self_fraction: float
    layers: tuple[str, ...]

    def gate(self, schedule: Any, target: str) -> Tensor:
        return released_gate(schedule, target, self.tokenizer, self.width, self.steps)

    def everywhere(self, curve: Sequence[float]) -> Tensor:
        """A gate that is equal at all columns."""
        return torch.tensor(curve, dtype=torch.float64)[:, None].expand(-1, self.width)

    def swap(self, source: str, target: str, as_released: bool = False) -> Swap:
        return Swap(swap_mapper(source, target, self.tokenizer, self.width, as_released))

    def refinement(self, source: str, target: str, as_released: bool = False) -> Refinement:
        old, new = (self.tokenizer(text).input_ids for text in (source, target))
        mapper, alphas = refinement_mapper(old, new, self.width)
        if not as_released:
            alphas = alphas.clone()
            alphas[len(new) : len(old)] = 0
        return Refinement(mapper, alphas)

    def script(self, script: Sequence[tuple[str, str]]) -> Columns:
        mapper, alphas = script_mapper(script, self.tokenizer, self.width)
        return Columns(mapper, torch.diag(1 - alphas))

    def weights(self, target: str, factors: dict[str, float]) -> Tensor:
        values = torch.ones(self.width, dtype=torch.float64)
        for word, columns in zip(target.split(" "), word_pieces(target, self.tokenizer), strict=True):
            values[columns] = factors.get(word, 1.0)
        return values

    def scaled_own(self, target: str, factors: dict[str, float]) -> Columns:
        """What it is applied to, times weights."""
        nothing = torch.zeros(self.width, self.width, dtype=torch.float64)
        return Columns(nothing, torch.diag(self.weights(target, factors)))

    def one_word(self, source: str, old: str, target: str, new: str) -> Columns:
        """The source's columns of one word in place of the target's."""
        rows = word_pieces(source, self.tokenizer)[source.split(" ").index(old)]
        columns = word_pieces(target, self.tokenizer)[target.split(" ").index(new)]
        L, own = torch.zeros(self.width, self.width, dtype=torch.float64), torch.ones(self.width).double()
        own[columns] = 0
        for a, i in enumerate(rows):
            for b, j in enumerate(columns):
                L[i, j] = float(a == b) if len(rows) == len(columns) else 1 / len(columns)
        return Columns(L, torch.diag(own))

    def injected(self, stop: float, start: float = 0.0, fraction: float | None = None) -> Injected:
        steps = range(int(start * self.steps), int(stop * self.steps))
        return Injected(steps, self.self_fraction if fraction is None else fraction)

    def mutual(self, start_step: int, first: int, stop: int | None = None) -> Mutual:
        return Mutual(range(start_step, self.steps), frozenset(self.layers[first:stop]))

    def share(self, share: float) -> int:
        """First layer at or after a share of the layers."""
        return next(index for index in range(len(self.layers) + 1) if index >= share * len(self.layers))


@dataclass(frozen=True)
class Case:
    """A controller, its prompts, and what the oracle does.

    Attributes:
        target: The target prompt.
        controller: The controller.
        parts: Makes the oracle's edits.
        source: The source prompt.
    """

    target: str
    controller: Controller
    parts: Callable[[Setting], Sequence[Timed | Injected | Mutual]]
    source: str = SOURCE

    def chain(self, setting: Setting) -> Chain:
        return Chain(self.parts(setting))


def ramp(steps: int, full: float, end: float, shape: str) -> list[float]:
    """A smooth gate: 1 up to `full`, then down, 0 from `end` on; its entries are `steps + 1`."""
    down, stop = (int(part * (steps + 1)) for part in (full, end))
    falling = [(k + 1) / (stop - down + 1) for k in range(stop - down)]
    curve = [1 - u if shape == "linear" else (1 + cos(pi * u)) / 2 for u in falling]
    return [*[1.0] * down, *curve, *[0.0] * (steps - stop)]


COSINE = {"end": 0.8, "ramp": 0.5, "shape": "cosine"}
PER_WORD = {"default_": 0.6, "square": (0.2, 0.5), "blue": 0.9}

CASES = {
    "none": Case(SWAP, NoControl(), lambda s: []),
    "replace": Case(
        SWAP, Replace(0.6, 0.5), lambda s: [Timed(s.swap(SOURCE, SWAP), s.gate(0.6, SWAP)), s.injected(0.5)]
    ),
    "replace, interval": Case(
        SWAP,
        Replace((0.3, 0.8), (0.2, 0.7)),
        lambda s: [Timed(s.swap(SOURCE, SWAP), s.gate((0.3, 0.8), SWAP)), s.injected(0.7, 0.2)],
    ),
    "replace as in the paper": Case(
        SWAP,
        Replace(0.6, 0.5, preset="paper"),
        lambda s: [Timed(s.swap(SOURCE, SWAP, True), s.gate(0.6, SWAP)), s.injected(0.5)],
    ),
    "replace named phrases": Case(
        PHRASE,
        Replace(0.6, 0.5, words={"red circle": "small blue square"}),
        lambda s: [Timed(s.script(SCRIPT), s.gate(0.6, PHRASE)), s.injected(0.5)],
    ),
    "replace aligned phrases": Case(
        PHRASE,
        Replace(0.6, 0.0, align=True),
        lambda s: [Timed(s.script(SCRIPT), s.gate(0.6, PHRASE))],
    ),
    "replace, a schedule per word": Case(
        PHRASE,
        Replace(PER_WORD, 0.0, align=True),
        lambda s: [Timed(s.script(SCRIPT), s.gate(PER_WORD, PHRASE))],
    ),
    "replace, a schedule per word without default": Case(
        SWAP,
        Replace({"circle": 0.3}, 0.0),
        lambda s: [Timed(s.swap(SOURCE, SWAP), s.gate({"circle": 0.3}, SWAP))],
    ),
    "replace, linear gate": Case(
        SWAP,
        Replace(Ramp(end=0.9, ramp=0.6), 0.0),
        lambda s: [Timed(s.swap(SOURCE, SWAP), s.everywhere(ramp(s.steps, 0.3, 0.9, "linear")))],
    ),
    "refine": Case(
        LONG,
        Refine(0.6, 0.5),
        lambda s: [Timed(s.refinement(SOURCE, LONG), s.gate(0.6, LONG)), s.injected(0.5)],
    ),
    "refine, cosine gate": Case(
        LONG,
        Refine(COSINE, 0.0),
        lambda s: [Timed(s.refinement(SOURCE, LONG), s.everywhere(ramp(s.steps, 0.3, 0.8, "cosine")))],
    ),
    "refine to fewer words": Case(
        SHORT, Refine(0.6, 0.0), lambda s: [Timed(s.refinement(SOURCE, SHORT), s.gate(0.6, SHORT))]
    ),
    "refine to fewer words as in the paper": Case(
        SHORT,
        Refine(0.6, 0.0, preset="paper"),
        lambda s: [Timed(s.refinement(SOURCE, SHORT, True), s.gate(0.6, SHORT))],
    ),
    "reweight alone": Case(
        SOURCE,
        Reweight({"circle": -2.0}, 0.6, 0.5),
        lambda s: [Timed(Scaling(s.weights(SOURCE, {"circle": -2.0})), s.gate(0.6, SOURCE)), s.injected(0.5)],
    ),
    "reweight alone, cosine gate": Case(
        SOURCE,
        Reweight({"circle": 3.0}, COSINE),
        lambda s: [
            Timed(
                Scaling(s.weights(SOURCE, {"circle": 3.0})), s.everywhere(ramp(s.steps, 0.3, 0.8, "cosine"))
            )
        ],
    ),
    "reweight a refinement": Case(
        LONG,
        Reweight({"fog": 2.5, "grass": 0.0}, 0.6, inner=Refine(0.6, 0.5)),
        lambda s: [
            Timed(
                Scaling(s.weights(LONG, {"fog": 2.5, "grass": 0.0}), s.refinement(SOURCE, LONG)),
                s.gate(0.6, LONG),
            ),
            s.injected(0.5),
        ],
    ),
    "reweight the preservation of an object": Case(
        LONG,
        Reweight({"circle": 2.0}, 0.5, inner=InjectWords("circle", 0.5)),
        lambda s: [
            Timed(
                Scaling(s.weights(LONG, {"circle": 2.0}), s.one_word(SOURCE, "circle", LONG, "circle")),
                s.gate(0.5, LONG),
            )
        ],
    ),
    "by edit": Case(
        LONG,
        ByEdit(0.6, 0.5, {"fog": 2.5}),
        lambda s: [
            Timed(Scaling(s.weights(LONG, {"fog": 2.5}), s.refinement(SOURCE, LONG)), s.gate(0.6, LONG)),
            s.injected(0.5),
        ],
    ),
    "inject words": Case(
        LONG,
        InjectWords(["circle"], 0.6, 0.3),
        lambda s: [
            Timed(s.one_word(SOURCE, "circle", LONG, "circle"), s.gate(0.6, LONG)),
            s.injected(0.3),
        ],
    ),
    "inject words of other names": Case(
        SWAP,
        InjectWords({"red": "hexagon", "grass": "sand"}, {"default_": 0.3, "sand": 0.8}),
        lambda s: [
            Timed(s.one_word(SOURCE, "red", SWAP, "hexagon"), s.gate(0.3, SWAP)),
            Timed(s.one_word(SOURCE, "grass", SWAP, "sand"), s.gate(0.8, SWAP)),
        ],
    ),
    "self-attention": Case(SWAP, SelfAttention((0.2, 0.7)), lambda s: [s.injected(0.7, 0.2)]),
    "self-attention of all sizes": Case(
        SWAP, SelfAttention(0.5, fraction=1.0), lambda s: [s.injected(0.5, fraction=1.0)]
    ),
    "masactrl": Case(SWAP, MasaCtrl(), lambda s: [s.mutual(int(0.08 * s.steps), s.share(0.625))]),
    "masactrl by index": Case(
        SWAP, MasaCtrl(start_step=2, layers=[1, 4]), lambda s: [s.mutual(2, 1, 4)]
    ),
    "masactrl by share": Case(
        SWAP,
        MasaCtrl(start_step=0.5, layers=(0.25, 0.75)),
        lambda s: [s.mutual(int(0.5 * s.steps), s.share(0.25), s.share(0.75))],
    ),
    "refine, then reweight, then masactrl": Case(
        LONG,
        Compose([Refine(0.8, 0.5), Reweight({"fog": 2.0}, (0.2, 0.6), inner=NoControl()), MasaCtrl(2, 0.5)]),
        lambda s: [
            Timed(s.refinement(SOURCE, LONG), s.gate(0.8, LONG)),
            s.injected(0.5),
            Timed(s.scaled_own(LONG, {"fog": 2.0}), s.gate((0.2, 0.6), LONG)),
            s.mutual(2, s.share(0.5)),
        ],
    ),
    "masactrl, then self-attention": Case(
        SWAP,
        Compose([MasaCtrl(1, 0.0), SelfAttention(0.6)]),
        lambda s: [s.mutual(1, 0), s.injected(0.6)],
    ),
    "replace softly, then keep a word": Case(
        SWAP,
        Compose([Replace(Ramp(end=0.9, ramp=0.6), 0.3), InjectWords("circle", {"circle": (0.2, 1.0)})]),
        lambda s: [
            Timed(s.swap(SOURCE, SWAP), s.everywhere(ramp(s.steps, 0.3, 0.9, "linear"))),
            s.injected(0.3),
            Timed(s.one_word(SOURCE, "circle", SWAP, "circle"), s.gate({"circle": (0.2, 1.0)}, SWAP)),
        ],
    ),
    "reweight a composition, inside a composition": Case(
        LONG,
        Compose(
            [
                Reweight({"fog": 2.0}, COSINE, inner=Compose([Refine(0.4, 0.0), InjectWords("grass", 0.7)])),
                SelfAttention(0.3),
            ]
        ),
        lambda s: [
            Timed(s.refinement(SOURCE, LONG), s.gate(0.4, LONG)),
            Timed(s.one_word(SOURCE, "grass", LONG, "grass"), s.gate(0.7, LONG)),
            Timed(
                s.scaled_own(LONG, {"fog": 2.0}),
                s.everywhere(ramp(s.steps, 0.3, 0.8, "cosine")),
            ),
            s.injected(0.3),
        ],
    ),
    "paper": Case(
        SWAP,
        paper(0.6, 0.5),
        lambda s: [Timed(s.swap(SOURCE, SWAP, True), s.gate(0.6, SWAP)), s.injected(0.5, fraction=0.25)],
    ),
    "notebook": Case(
        SHORT,
        notebook().for_pair({"circle": 2.0}),
        lambda s: [
            Timed(
                Scaling(s.weights(SHORT, {"circle": 2.0}), s.refinement(SOURCE, SHORT, True)),
                s.gate(0.8, SHORT),
            ),
            s.injected(0.5, fraction=0.5),
        ],
    ),
    "pie": Case(
        SWAP,
        pie(),
        lambda s: [Timed(s.refinement(SOURCE, SWAP, True), s.gate(0.4, SWAP)), s.injected(0.6, fraction=0.5)],
    ),
}  # fmt: skip


def run_order(unet: Any, *inputs: Any) -> tuple[str, ...]:
    """Names of the self-attention layers in the order in which the network runs them."""
    seen: list[str] = []
    hooks = [
        module.register_forward_pre_hook(lambda *_, name=name: seen.append(name))
        for name, module in unet.named_modules()
        if name.endswith("attn1")
    ]
    with torch.no_grad():
        unet(*inputs)
    for hook in hooks:
        hook.remove()
    return tuple(seen)
