"""A family, an editor and a stepper that are not ours, as somebody else would write them."""
