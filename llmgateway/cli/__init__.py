"""The commands: a thin shell over the use cases, on the same stores as the server, also while it runs."""

from llmgateway.cli.commands import main

__all__ = ["main"]
