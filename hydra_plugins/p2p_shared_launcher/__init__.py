"""Hydra launchers that compute once what the jobs of a sweep have in common."""
