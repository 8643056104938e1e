"""`llmgateway.asgi:app` for gunicorn and uvicorn; it is made when it is asked for, so that importing does
nothing."""

from llmgateway.app import Llmgateway, load_app


def __getattr__(name: str) -> Llmgateway:
    if name == "app":
        return load_app()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
