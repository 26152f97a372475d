"""An editor without a model: it paints the picture in the colour that the target prompt names."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from p2p_bench.editing import EditRequest, EditResult
from p2p_bench.editing.run import Progress
from p2p_bench.editors import EditorSettings, Equipment
from p2p_bench.errors import P2PError

COLOURS = {"red": (1.0, 0.0, 0.0), "green": (0.0, 1.0, 0.0), "blue": (0.0, 0.0, 1.0)}


@dataclass(frozen=True)
class Painter(EditorSettings):
    """How much of the colour is laid over the picture."""

    strength: float = 0.5

    def ready(self, equipment: Equipment, device: torch.device | str = "cpu") -> "PaintingEditor":
        return PaintingEditor(self.strength, equipment.checkpoint.spec().image_size)


@dataclass(frozen=True)
class PaintingEditor:
    strength: float
    size: tuple[int, int]

    def edit(self, requests: Sequence[EditRequest], progress: Progress | None = None) -> list[EditResult]:
        return [self._painted(request) for request in requests]

    def _painted(self, request: EditRequest) -> EditResult:
        grey = torch.full((3, *self.size), 0.5) if request.image is None else request.image
        images, errors = [grey], [None]
        for target in request.targets:
            named = [COLOURS[word] for word in target.prompt.split() if word in COLOURS]
            colour = torch.tensor(named[0] if named else (torch.nan,) * 3)[:, None, None]
            images.append(torch.lerp(grey, colour.expand_as(grey), self.strength))
            errors.append(None if named else P2PError(f"no colour in {target.prompt!r}"))
        return EditResult.made(request.id, torch.stack(images), errors)
