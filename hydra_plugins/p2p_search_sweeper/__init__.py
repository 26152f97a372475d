"""A Hydra sweeper that chooses the jobs of a sweep by what earlier ones scored."""
