"""Editors: whoever turns requests into edited images. Attention control is one of several; a file each."""

from p2p_bench.editors.base import Editor, EditorSettings, Equipment
from p2p_bench.editors.controlled import ControlledSampling

__all__ = ["ControlledSampling", "Editor", "EditorSettings", "Equipment"]
