"""The border between a model and all that edits with it: what every family of models shares."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from p2p_bench.attention.plan import StepPlan
from p2p_bench.attention.sites import Site
from p2p_bench.errors import ConfigError, P2PError
from p2p_bench.models.calls import NetworkCall
from p2p_bench.models.conditioning import Conditioning, EncodedPrompts, without_prompt
from p2p_bench.models.level import Denoised, Level
from p2p_bench.models.spec import ModelSpec
from p2p_bench.models.timesteps import LevelKind, Spacing
from p2p_bench.models.upscaler import Upscaler
from p2p_bench.prompts.words import PromptReader, TokenizedPrompt


class DiffusionModel(ABC):
    """A loaded text-to-image model.

    A family is one file with a subclass of this, and a YAML file that names its checkpoint; nothing outside
    `models/` asks which family a model is of. What a method needs beyond this, a model states as a capability
    in its `spec`. Weights are frozen and no method changes the model; gradients with respect to inputs are
    allowed. Threads may share it.

    Attributes:
        spec: Facts about it.
        sites: Attention sites of the network.
        encoded: The prompts that were encoded before.
        device: Where the weights are.
        dtype: Number format of the weights.
        call: How the network is called; None: as it is.
        upscaler: What enlarges its images once they are sampled; None: nothing does.
    """

    spec: ModelSpec
    sites: tuple[Site, ...]
    encoded: EncodedPrompts
    device: torch.device
    dtype: torch.dtype
    call: NetworkCall | None = None
    upscaler: Upscaler | None = None

    @property
    @abstractmethod
    def network(self) -> nn.Module:
        """The network that `predict` asks."""

    @abstractmethod
    def ladder(self, steps: int) -> tuple[Level, ...]:
        """The noise levels of a run of `steps` steps: `steps + 1`, noisiest first, the clean end last.

        Raises:
            ConfigError: The model cannot be sampled in so many steps.
        """

    def laid_out(self, kind: LevelKind, spacing: Spacing | None = None) -> "DiffusionModel":
        """The same model with the noise levels of another sampler: itself, where it has only its own.

        Args:
            kind: Whose levels.
            spacing: How they are laid out; None keeps the model's own.

        Raises:
            ConfigError: There are no such levels, see `ModelSpec.laid_out`.
        """
        self.spec.laid_out(kind, spacing)
        return self

    def start(self, noise: Float[Tensor, "*shape"], steps: int) -> Float[Tensor, "*shape"]:
        """What a run of so many steps starts from, of standard normal noise: that noise."""
        return noise

    @abstractmethod
    def tokenize(
        self, text: str, truncate: bool = False, allow_empty: bool = False, role: str = "prompt"
    ) -> TokenizedPrompt:
        """See `PromptReader.tokenize`."""

    @abstractmethod
    def encode_one(self, prompt: TokenizedPrompt) -> Conditioning:
        """The single row of conditioning that a prompt makes; `encode` remembers it."""

    @abstractmethod
    def predict(
        self,
        latents: Float[Tensor, "n c h w"],
        level: Level,
        conditioning: Conditioning,
        plan: StepPlan | None = None,
    ) -> Denoised:
        """One pass of the network.

        Args:
            latents: One per network row, in any number format.
            level: Their noise level; not the clean end.
            conditioning: A row per network row.
            plan: What the attention sites do; needs `controlled`.

        Returns:
            What is in the latents, in their number format.
        """

    @abstractmethod
    def controlled(self) -> AbstractContextManager[object]:
        """Within this context the attention sites follow the plan given to `predict`."""

    @abstractmethod
    def encode_images(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n c k l"]:
        """Latents of images in [0, 1], of the size `spec.image_size`, in `state_dtype`."""

    def shown(self, images: Float[Tensor, "n 3 h w"]) -> Conditioning:
        """What tells the network which images to edit, a row each, beside what `encode` gives.

        Args:
            images: In [0, 1], of the model's size.

        Raises:
            ConfigError: The model reads none, see "instruction" in `Capability`.
        """
        raise ConfigError(f"model: {self.spec.name!r} reads a prompt and no image beside it")

    @abstractmethod
    def decode_latents(self, latents: Float[Tensor, "n c k l"]) -> Float[Tensor, "n 3 h w"]:
        """Images of latents, before any upscaler: float32 in [0, 1], on the model's device."""

    def ask(self, *arguments: Any, **named: Any) -> Any:
        """What the network answers, called as `call` says."""
        return (self.network if self.call is None else self.call)(*arguments, **named)

    def at_work(self) -> AbstractContextManager[object]:
        """Within it passes need not be prepared for one by one; it changes no result."""
        return nullcontext() if self.call is None else self.call.at_work()

    def check_differentiable(self, method: str) -> None:
        """See that gradients go through the network.

        Args:
            method: What needs them, for the message.

        Raises:
            P2PError: Its weights were loaded within `torch.inference_mode`.
        """
        if any(parameter.is_inference() for parameter in self.network.parameters()):
            raise P2PError(
                f"{method} needs gradients, which weights loaded within torch.inference_mode() do not give; "
                "load the model outside of it"
            )

    @property
    def identity(self) -> tuple[Any, ...]:
        """What decides predictions besides noise levels, number format and `roundings`, as plain values.

        Families that tell their network something of a setting's own add it.
        """
        spec = self.spec
        return (spec.checksum, spec.prediction_type, spec.unprompted, spec.guided_by, spec.max_tokens)

    @property
    def roundings(self) -> tuple[str, ...]:
        """What makes predictions differ, by rounding, from those of the same weights; see `NetworkCall`."""
        return () if self.call is None else self.call.roundings

    @property
    def state_dtype(self) -> torch.dtype:
        """Number format of latents between steps: the model's, and never below float32."""
        return torch.promote_types(self.dtype, torch.float32)

    def encode(self, prompts: Sequence[TokenizedPrompt]) -> Conditioning:
        """Conditioning of prompts, a row each; each is encoded once, and alone.

        Args:
            prompts: At least one.
        """
        # Tensors made in inference mode could not be differentiated through later.
        with torch.inference_mode(False), torch.no_grad():
            return self.encoded.of(prompts, self.encode_one)

    def unconditional(self) -> Conditioning:
        """The row of conditioning of a pass without a prompt, see `ModelSpec.unprompted`."""
        empty = self.encode([self.tokenize("", allow_empty=True)])
        return without_prompt(empty) if self.spec.unprompted == "zeros" else empty

    def __repr__(self) -> str:
        """One line: name, size, place."""
        height, width = self.spec.image_size
        number_format = str(self.dtype).removeprefix("torch.")
        kind = type(self).__name__
        return f"{kind}({self.spec.name!r}, {width} x {height} pixels, {number_format} on {self.device})"


@runtime_checkable
class Checkpoint(Protocol):
    """A model in three steps of rising cost: facts, tokenizers, weights."""

    def spec(self) -> ModelSpec:
        """Facts, read from configuration files."""
        ...

    def reader(self) -> PromptReader:
        """What reads prompts: the tokenizers alone."""
        ...

    def load(self, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> DiffusionModel:
        """The model with its weights, in a number format; None is the checkpoint's own."""
        ...
