"""Attention control without attention maps: edits are folded into the values of a fused call."""
