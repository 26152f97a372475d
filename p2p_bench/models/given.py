"""In the place of a model where images were made elsewhere: their size and whose they are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, NoReturn

import torch

from p2p_bench.errors import ConfigError
from p2p_bench.fields import AtLeast, check_fields
from p2p_bench.models.spec import ModelSpec

FAMILY = "given"


@dataclass(frozen=True)
class GivenImages:
    """Whoever made the images of `p2p-bench score`.

    Attributes:
        name: Name in results: the tool or the model that made them.
        size: Height and width of the images, in pixels.
    """

    size: Sequence[Annotated[int, AtLeast(1)]]
    name: str = "given"

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ConfigError: One is of the wrong type or out of range.
        """
        check_fields(self, "model.")
        whole = [isinstance(side, int) and not isinstance(side, bool) and side >= 1 for side in self.size]
        if whole != [True, True]:
            raise ConfigError(
                f"model.size: expected height and width, such as [512, 512], got {list(self.size)}"
            )

    def spec(self) -> ModelSpec:
        """The size and the name; what is asked of a network has no meaning here."""
        height, width = self.size
        return ModelSpec(
            name=self.name,
            family=FAMILY,
            latent_channels=0,
            latent_size=(0, 0),
            image_size=(height, width),
            max_tokens=0,
            prediction_type="",
            guidance=float("nan"),
            steps=1,
            self_fraction=1.0,
            record_fraction=1.0,
            vae_scaling=1.0,
            checksum="",
            capabilities=frozenset(),
        )

    def reader(self) -> NoReturn:
        """There is none.

        Raises:
            ConfigError: Always.
        """
        raise self._absent()

    def load(self, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> NoReturn:
        """There is nothing to load.

        Raises:
            ConfigError: Always.
        """
        raise self._absent()

    def _absent(self) -> ConfigError:
        return ConfigError(
            "model=given: images that were made elsewhere are scored, with p2p-bench score; "
            "nothing can be edited with it, choose a model"
        )
