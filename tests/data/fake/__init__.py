"""Makers of fake data in the real layouts of published data sets."""
