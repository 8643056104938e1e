"""Examples of what programs send, for the OpenAPI document: whoever tries a call begins with one."""

from collections.abc import Mapping
from typing import Any

from llmgateway.domain.endpoints import Endpoint

NO_MODEL = "MODEL"  # stands for a model's id; the portal's viewer puts one there that the visitor may call
MESSAGES = [{"role": "user", "content": "Hello!"}]
FILE = {"type": "string", "format": "binary"}
PROMPT = {"type": "string", "examples": ["A lighthouse in fog"]}
# By path: what goes beside the model's name.
BODIES: Mapping[str, Mapping[str, Any]] = {
    "/v1/chat/completions": {"messages": MESSAGES},
    "/v1/completions": {"prompt": "Once upon a time", "max_tokens": 50},
    "/v1/embeddings": {"input": ["A first text", "A second one"]},
    "/v1/responses": {"input": "Hello!"},
    "/v1/moderations": {"input": "Is this fine?"},
    "/v1/rerank": {"query": "What is a gateway?", "documents": ["A way in", "A fruit"]},
    "/v1/score": {"text_1": "A way in", "text_2": "An entrance"},
    "/v1/audio/speech": {"input": "Hello!", "voice": "alloy"},
    "/v1/images/generations": {"prompt": "A lighthouse in fog"},
    "/extras/tokenize/count": {"messages": MESSAGES},
}
FORMS: Mapping[str, Mapping[str, Any]] = {
    "/v1/audio/transcriptions": {"file": FILE},
    "/v1/audio/translations": {"file": FILE},
    "/v1/images/edits": {"image": FILE, "prompt": PROMPT},
    "/v1/images/variations": {"image": FILE},
}


def examples_of(endpoint: Endpoint) -> dict[str, Any]:
    """Named, as OpenAPI has them; what generates can be had whole and as a stream."""
    body = {"model": NO_MODEL, **BODIES[endpoint.path]}
    if not endpoint.generates:
        return {"whole": {"summary": "An example", "value": body}}
    return {
        "whole": {"summary": "The whole answer at once", "value": body},
        "stream": {"summary": "A stream of events", "value": {**body, "stream": True}},
    }
