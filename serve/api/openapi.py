"""The OpenAPI document: what the endpoints take and answer, from the same models and the same table of fields."""

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from serve.api.fields import Known
from serve.api.protocol import ChatBody, ChatMessage, DetokenizeBody, Part, StreamOptions, TextBody, TokenizeBody

BODIES: tuple[type[Part], ...] = (ChatBody, TextBody, TokenizeBody, DetokenizeBody, ChatMessage, StreamOptions)
POSTS: dict[str, tuple[type[Part], str]] = {
    "/v1/chat/completions": (ChatBody, "A chat completion, or a stream of its chunks"),
    "/v1/completions": (TextBody, "A text completion, or a stream of its chunks"),
    "/tokenize": (TokenizeBody, "The token ids of a text or a conversation"),
    "/detokenize": (DetokenizeBody, "The text of token ids"),
}
GETS: dict[str, str] = {
    "/v1/models": "The model that is served",
    "/v1/models/{name}": "The model, by its name",
    "/health": "Whether the process is of use",
    "/ready": "Whether requests are taken now",
    "/openapi.json": "This document",
}
WHY = {
    400: "The request is not valid, or asks for what this server does not support",
    401: "An API key is needed",
    403: "The Host header is not a name of this server",
    404: "No such model",
    408: "The body did not arrive in time",
    413: "The body is too large",
    415: "The body is not declared as JSON",
    429: "The queue is full",
    503: "The server is shutting down, or its engine has stopped",
}
LABELS = {str: "string", dict: "object"}


class ErrorObject(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """OpenAI's error object."""

    error: ErrorObject


def document(model: str, keyed: bool) -> dict[str, Any]:
    """The document of a server of `model`; `keyed`: it asks for API keys."""
    always = [403, *([401] if keyed else [])]
    paths: dict[str, Any] = {path: {"post": _post(path, always)} for path in POSTS}
    paths |= {path: {"get": _get(path, text, always)} for path, text in GETS.items()}
    answers = {"200": {"description": "Prometheus text", "content": {"text/plain": {"schema": {"type": "string"}}}}}
    paths["/metrics"] = {"get": {"summary": "Counters of the engine", "responses": {**answers, **_errors(always)}}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "tapeout", "version": "1", "description": f"An OpenAI-compatible server of {model}"},
        "paths": paths,
        "components": {"schemas": _schemas(), **({"securitySchemes": _scheme()} if keyed else {})},
        **({"security": [{"key": []}]} if keyed else {}),
    }


def _post(path: str, always: list[int]) -> dict[str, Any]:
    body, summary = POSTS[path]
    runs = path.startswith("/v1/")
    content: dict[str, Any] = {"application/json": {"schema": {"type": "object"}}}
    if runs:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": {"application/json": {"schema": _ref(body.__name__)}}},
        "responses": {
            "200": {"description": summary, "content": content},
            **_errors([400, 404, 408, 413, 415, *([429, 503] if runs else []), *always]),
        },
    }


def _get(path: str, summary: str, always: list[int]) -> dict[str, Any]:
    answers: dict[str, Any] = {
        "200": {"description": summary, "content": {"application/json": {"schema": {"type": "object"}}}}
    }
    if path in ("/health", "/ready"):
        state = {"application/json": {"schema": {"type": "object"}}}
        answers["503"] = {"description": WHY[503], "content": state}
        always = [403]
    if "{name}" in path:
        answers |= _errors([404])
        named = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
        return {"summary": summary, "parameters": [named], "responses": {**answers, **_errors(always)}}
    return {"summary": summary, "responses": {**answers, **_errors(always)}}


def _errors(statuses: list[int]) -> dict[str, Any]:
    content = {"application/json": {"schema": _ref(ErrorBody.__name__)}}
    return {str(status): {"description": WHY[status], "content": content} for status in sorted(statuses)}


def _schemas() -> dict[str, Any]:
    models: list[Any] = [(model, "validation") for model in (*BODIES, ErrorBody)]
    _, found = models_json_schema(models, ref_template="#/components/schemas/{model}")
    schemas = found["$defs"]
    for body in BODIES:
        for field in body.known:
            schemas[body.__name__]["properties"].setdefault(field.name, _neutral(field))
    for body in (ChatBody, TextBody):
        stop = schemas[body.__name__]["properties"]["stop"]
        schemas[body.__name__]["properties"]["stop"] = {"anyOf": [{"type": "string", "minLength": 1}, stop]}
    return schemas


def _neutral(field: Known) -> dict[str, Any]:
    if field.label is not None:
        return {"type": LABELS[field.label], "description": "Taken, and without effect"}
    return {"enum": list(field.neutral), "description": "Taken at these values only, which change nothing"}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _scheme() -> dict[str, Any]:
    return {"key": {"type": "http", "scheme": "bearer"}}
