"""The verbs of the command line: one module each, with `main(arguments, debug) -> exit code`."""
