"""The OpenAPI document: valid, and about every route there is."""

import json
import re

import pytest
from openapi_spec_validator import validate

from llmgateway.admin.routes import ROUTES
from llmgateway.domain.endpoints import ENDPOINTS
from llmgateway.edge.openapi import Schema, openapi


@pytest.fixture(scope="module")
def document() -> Schema:
    made = openapi(ROUTES, version="1.2.3", public_url="https://llm.example.org")
    read: Schema = json.loads(json.dumps(made))
    return read


def test_it_is_valid(document: Schema) -> None:
    validate(document)
    assert document["openapi"].startswith("3.1")
    assert document["info"]["version"] == "1.2.3"
    assert document["servers"] == [{"url": "https://llm.example.org"}]


def test_every_route_is_there(document: Schema) -> None:
    for path in ENDPOINTS:
        assert document["paths"][path]["post"]["security"] == [
            {"key": []},
            {"keyHeader": []},
            {"azureHeader": []},
        ]
    for operation in ROUTES:
        path = re.sub(r":\w+}", "}", operation.path)
        told = document["paths"][path][operation.method.lower()]
        assert told["security"] == [{"admin": []}, {"adminHeader": []}]
        assert str(operation.status) in told["responses"]
    for path in (
        "/v1/models",
        "/v1/models/{id}",
        "/health/live",
        "/health/ready",
        "/health",
        "/metrics",
        "/docs",
    ):
        assert "get" in document["paths"][path]
    assert "post" in document["paths"]["/extras/tokenize/count"]


def test_bodies_say_what_may_be_in_them(document: Schema) -> None:
    changes = document["components"]["schemas"]["KeyChanges"]
    assert set(changes["properties"]) == {"name", "models", "expires_at", "limits", "state"}
    assert changes["additionalProperties"] is False
    query = document["paths"]["/admin/keys"]["get"]["parameters"]
    assert {one["name"] for one in query} == {"user", "state", "project", "limit", "after"}
    assert [one["schema"] for one in query if one["name"] == "after"] == [{"type": "string"}]
    assert "text/csv" in document["paths"]["/admin/usage"]["get"]["responses"]["200"]["content"]
    form = document["paths"]["/v1/audio/transcriptions"]["post"]["requestBody"]["content"]
    assert list(form) == ["multipart/form-data"]


def test_every_operation_has_a_name_of_its_own(document: Schema) -> None:
    names = [one["operationId"] for methods in document["paths"].values() for one in methods.values()]
    assert len(names) == len(set(names))
