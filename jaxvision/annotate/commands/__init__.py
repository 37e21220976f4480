"""Subcommands of `python -m jaxvision.annotate`: each parses a command line and calls a function of `annotate`."""
