"""`llmgateway.asgi:app` for gunicorn and uvicorn; it is made when it is asked for, so that importing does
nothing."""

import sys

from llmgateway.app import Llmgateway, create_app
from llmgateway.observability.logs import configure
from llmgateway.settings import BadSettings, Settings, of_this_process, with_secrets


def load() -> Llmgateway:
    """The application of this process's environment; whoever starts it is told what is wrong with that."""
    try:
        settings = with_secrets(Settings.load(of_this_process()))
    except BadSettings as bad:
        for complaint in bad.complaints:
            sys.stderr.write(f"llmgateway: {complaint}\n")
        raise SystemExit(2) from None
    configure(settings.log_level, settings.log_format)
    return create_app(settings)


def __getattr__(name: str) -> Llmgateway:
    if name == "app":
        return load()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
