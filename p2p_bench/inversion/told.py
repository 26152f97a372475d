"""What methods that invert with a prompt can be told of the source.

Released code does not always invert with the source prompt: MasaCtrl inverts with the empty one and tells the
source nothing while it is sampled again; plug-and-play inverts with the source prompt and then tells nothing.
"""

from dataclasses import dataclass
from typing import Literal

from p2p_bench.inversion.base import Inversion, Prompts

SourcePrompt = Literal["source", "empty"]
"""The pair's source prompt, or none."""


@dataclass(frozen=True, kw_only=True)
class ToldInversion(Inversion):
    """A method that inverts with a prompt; what it finds leads the source back by the same.

    Attributes:
        inverted_with: What the source is inverted and sampled again with: the source prompt, or "empty". A
            source that is told nothing has no attention to its words, so edits that take it are refused.
    """

    inverted_with: SourcePrompt = "source"

    @property
    def prompts(self) -> Prompts:
        """One for both ways."""
        return Prompts(self.inverted_with == "empty", self.inverted_with == "empty")


@dataclass(frozen=True, kw_only=True)
class ToldApart(ToldInversion):
    """A method whose source may be told something else on the way back than on the way there.

    Attributes:
        replayed_with: What the source is told while it is sampled again; None: what it was inverted with.
        negative_prompt: What the targets' passes without a prompt are told; "": nothing.
    """

    replayed_with: SourcePrompt | None = None
    negative_prompt: str = ""

    @property
    def prompts(self) -> Prompts:
        """One for each way, and that of the targets."""
        replayed = self.inverted_with if self.replayed_with is None else self.replayed_with
        return Prompts(self.inverted_with == "empty", replayed == "empty", self.negative_prompt)
