"""The composition root: the only package that knows all parts, opens them, and puts them together."""

from llmgateway.app.application import Llmgateway, create_app, load_app

__all__ = ["Llmgateway", "create_app", "load_app"]
