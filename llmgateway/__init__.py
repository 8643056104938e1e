"""llmgateway: a gateway in front of the language models an organisation hosts."""

__version__ = "0.1.0"
