"""`/openapi.json`, made from the tables that the routes are made from: it cannot say anything else."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol

import msgspec
from msgspec import Struct

from llmgateway.domain.endpoints import ENDPOINTS, Endpoint
from llmgateway.edge.examples import BODIES, FORMS, NO_MODEL, examples_of

REF = "#/components/schemas/{name}"
CONVERTOR = re.compile(r"\{(\w+)(?::\w+)?\}")  # how a path names its variable part, and of what kind it is
JSON, SSE, CSV, TEXT, HTML = "application/json", "text/event-stream", "text/csv", "text/plain", "text/html"

Schema = dict[str, Any]


class AdminOperation(Protocol):
    """A line of the operators' table. `asks` is in the body or in the query; `gives` is the answer, or what a
    list is of. Both are types that msgspec knows."""

    @property
    def method(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def summary(self) -> str: ...
    @property
    def asks(self) -> Any: ...
    @property
    def gives(self) -> Any: ...
    @property
    def status(self) -> int: ...
    @property
    def is_list(self) -> bool: ...
    @property
    def has_body(self) -> bool: ...
    @property
    def media(self) -> str: ...


class Plain(Struct, frozen=True):
    """A route that takes nothing but its path. `access` is whose credential it asks for."""

    path: str
    summary: str
    access: Literal["key", "admin", "nobody"]
    tag: str
    media: str = JSON


PLAIN: Sequence[Plain] = (
    Plain("/v1/models", "The models that the key may call", "key", "models"),
    Plain("/v1/models/{id}", "A model that the key may call", "key", "models"),
    Plain("/health/live", "Whether the process is alive; 200 as long as it is", "nobody", "machines"),
    Plain("/health/ready", "Whether it wants traffic: 200, or 503", "nobody", "machines"),
    Plain("/health", "Both, with versions and the parts that do not answer", "nobody", "machines"),
    Plain("/metrics", "Metrics for Prometheus; open to all where set so", "admin", "machines", TEXT),
    Plain("/openapi.json", "This document", "nobody", "machines"),
    Plain("/docs", "This document, for reading", "nobody", "machines", HTML),
)

SECURITY_SCHEMES: Schema = {
    "key": {"type": "http", "scheme": "bearer", "description": "An API key: `lgw_...`"},
    "keyHeader": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "The same key"},
    "azureHeader": {"type": "apiKey", "in": "header", "name": "api-key", "description": "The same key"},
    "admin": {"type": "http", "scheme": "bearer", "description": "The operators' credential: ADMIN_KEY"},
    "adminHeader": {"type": "apiKey", "in": "header", "name": "AdminKey", "description": "The same"},
}
SECURITY: Mapping[str, list[Schema]] = {
    "key": [{"key": []}, {"keyHeader": []}, {"azureHeader": []}],
    "admin": [{"admin": []}, {"adminHeader": []}],
    "nobody": [],
}

NULLABLE = {"type": ["string", "null"]}
ERROR: Schema = {
    "type": "object",
    "title": "Error",
    "description": "Every error, in OpenAI's shape. `code` is stable.",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": NULLABLE,
                "code": NULLABLE,
            },
        }
    },
}
ERROR_CONTENT: Schema = {JSON: {"schema": {"$ref": REF.format(name="Error")}}}
ERRORS: Schema = {"default": {"description": "An error", "content": ERROR_CONTENT}}

MODEL: Schema = {"type": "string", "description": "A model's id or alias", "examples": [NO_MODEL]}
TOKENIZE: Schema = {
    "summary": "How many tokens a text or a chat has for a model",
    "tags": ["models"],
    "operationId": "post_extras_tokenize_count",
    "security": SECURITY["key"],
    "requestBody": {
        "required": True,
        "content": {JSON: {"schema": {
            "type": "object",
            "description": "With `model`: `input` (a text, or a chat request), or `messages`.",
            "properties": {
                "model": {"type": "string"},
                "input": {"type": ["string", "object", "array"]},
                "messages": {"type": "array", "items": {"type": "object"}},
            },
        }, "example": {"model": NO_MODEL, **BODIES["/extras/tokenize/count"]}}},
    },
    "responses": {
        "200": {"description": "The count", "content": {JSON: {"schema": {
            "type": "object", "required": ["count"],
            "properties": {"count": {"type": "integer"}, "source": {"enum": ["counted", "estimated"]}},
        }}}},
        **ERRORS,
    },
}  # fmt: skip


def openapi(admin: Sequence[AdminOperation], *, version: str, public_url: str) -> Schema:
    """The whole document, as JSON. `admin` is the operators' table."""
    types = [operation.gives for operation in admin]
    types += [operation.asks for operation in admin if operation.has_body]
    schemas, components = msgspec.json.schema_components(types, ref_template=REF)
    by_type = dict(zip((_name(kind) for kind in types), schemas, strict=True))
    paths: dict[str, Schema] = {path: {"post": _call(endpoint)} for path, endpoint in ENDPOINTS.items()}
    paths["/extras/tokenize/count"] = {"post": TOKENIZE}
    for route in PLAIN:
        paths.setdefault(route.path, {})["get"] = _plain(route)
    for operation in admin:
        path = CONVERTOR.sub(r"{\1}", operation.path)
        paths.setdefault(path, {})[operation.method.lower()] = _admin(operation, by_type)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "llmgateway", "version": version,
            "description": "A gateway in front of OpenAI-compatible model servers.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": public_url}],
        "paths": paths,
        "components": {"schemas": {**components, "Error": ERROR}, "securitySchemes": SECURITY_SCHEMES},
    }  # fmt: skip


def _call(endpoint: Endpoint) -> Schema:
    """A program's call: its body belongs to the model server, so little is promised of it."""
    fields: Schema = {"model": MODEL}
    if endpoint.generates:
        fields["stream"] = {"type": "boolean", "description": "Answer as events, as they come"}
    if endpoint.form == "multipart":
        extra = FORMS[endpoint.path]
        required = ["model", *extra]
        content: Schema = {"multipart/form-data": {"schema": _object({**fields, **extra}, required)}}
    else:
        content = {JSON: {"schema": _object(fields, ["model"]), "examples": examples_of(endpoint)}}
    kinds = [kind.decode() for kind in endpoint.media] if endpoint.media is not None else ["*/*"]
    answer = {"description": "The model server's own answer", "content": {kind: {} for kind in kinds}}
    return {
        "summary": endpoint.summary,
        "tags": ["calls"],
        "operationId": _operation_id("post", endpoint.path),
        "security": SECURITY["key"],
        "requestBody": {"required": True, "content": content},
        "responses": {"200": answer, **ERRORS},
    }


def _object(fields: Schema, required: Sequence[str]) -> Schema:
    return {"type": "object", "required": list(required), "properties": fields}


def _plain(route: Plain) -> Schema:
    return {
        "summary": route.summary,
        "tags": [route.tag],
        "operationId": _operation_id("get", route.path),
        "security": SECURITY[route.access],
        "parameters": [{**one, "example": NO_MODEL} for one in _in_path(route.path)],
        "responses": {"200": {"description": "The answer", "content": {route.media: {}}}, **ERRORS},
    }


def _admin(operation: AdminOperation, by_type: Mapping[str, Schema]) -> Schema:
    gives = by_type[_name(operation.gives)]
    answer = {operation.media: {"schema": _list_of(gives) if operation.is_list else gives}}
    parameters, body = _in_path(operation.path), {}
    if operation.has_body:
        body = {"requestBody": {"content": {JSON: {"schema": by_type[_name(operation.asks)]}}}}
    else:
        parameters += _in_query(operation.asks)
        if any(parameter["name"] == "format" for parameter in parameters):
            answer[CSV] = {"schema": {"type": "string"}}
    return {
        "summary": operation.summary,
        "tags": ["operators"],
        "operationId": _operation_id(operation.method, operation.path),
        "security": SECURITY["admin"],
        "parameters": parameters,
        **body,
        "responses": {str(operation.status): {"description": "Done", "content": answer}, **ERRORS},
    }


def _in_path(path: str) -> list[Schema]:
    names: Iterable[str] = CONVERTOR.findall(path)
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]


def _list_of(schema: Schema) -> Schema:
    return {
        "type": "object",
        "required": ["data", "next"],
        "properties": {
            "data": {"type": "array", "items": schema},
            "next": {**NULLABLE, "description": "The next page's `after`; null on the last"},
        },
    }


def _in_query(kind: Any) -> list[Schema]:
    """The fields of a struct, one parameter each. A parameter that is not given is not null but absent."""
    found = []
    for name, schema in msgspec.json.schema(kind)["$defs"][kind.__name__]["properties"].items():
        kinds = [one for one in schema.get("anyOf", ()) if one != {"type": "null"}]
        plain = kinds[0] if len(kinds) == 1 else {**schema, **({"anyOf": kinds} if kinds else {})}
        found.append({"name": name, "in": "query", "schema": plain})
    return found


def _operation_id(method: str, path: str) -> str:
    return "_".join([method.lower(), *re.findall(r"\w+", CONVERTOR.sub(r"\1", path))])


def _name(kind: Any) -> str:
    """Types such as dict[str, Any] are made anew at every mention, so what they say tells them apart."""
    return f"{getattr(kind, '__module__', '')} {kind!r}"
