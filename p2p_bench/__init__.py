"""Benchmark of text edits of images in diffusion models."""
