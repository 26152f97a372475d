"""Scenes of the embedded world: their attributes, captions, pictures and exact edits."""

from p2p_bench.world.scenes.attributes import (
    BACKGROUNDS,
    COLOURS,
    PATTERNS,
    SHAPES,
    STYLES,
    WEATHERS,
    Scene,
    SceneObject,
    held_out,
)
from p2p_bench.world.scenes.captions import attributes_of, caption
from p2p_bench.world.scenes.render import RenderedScenes, changed_mask, render
from p2p_bench.world.scenes.sampling import sample_scene

__all__ = [
    "BACKGROUNDS",
    "COLOURS",
    "PATTERNS",
    "SHAPES",
    "STYLES",
    "WEATHERS",
    "RenderedScenes",
    "Scene",
    "SceneObject",
    "attributes_of",
    "caption",
    "changed_mask",
    "held_out",
    "render",
    "sample_scene",
]
