"""Editors: whoever turns requests into edited images. Attention control is one of several; a file each."""

from p2p_bench.editors.base import Editor, EditorSettings, Equipment, KnownVariant
from p2p_bench.editors.controlled import ControlledSampling
from p2p_bench.editors.finished import FinishedRunImages
from p2p_bench.editors.folder import FolderOfImages
from p2p_bench.editors.instruct import InstructionEditing

__all__ = [
    "ControlledSampling",
    "Editor",
    "EditorSettings",
    "Equipment",
    "FinishedRunImages",
    "FolderOfImages",
    "InstructionEditing",
    "KnownVariant",
]
