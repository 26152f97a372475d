"""The embedded world: scenes that the project renders, and the small model trained on them."""
