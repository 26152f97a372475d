"""The outside: configuration, verbs of the command line, public functions. Hydra lives only here."""
