"""The OpenAPI document: what the endpoints take and answer, from the same models and the same table of fields.

What no schema can say is how many tokens a text has: one that is too long is 400, as the answers tell.
"""

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from serve.api.fields import Known
from serve.api.prompts import Model
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


def _given(name: str, **schema: Any) -> dict[str, Any]:
    """An object that has the field, with a value of the schema."""
    return {"required": [name], "properties": {name: schema}}


def _either(*schemas: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": list(schemas)}


PRESENT: dict[str, Any] = {"not": {"type": "null"}}
ABSENT: dict[str, Any] = {"type": "null"}
RULES: dict[type[Part], list[dict[str, Any]]] = {
    ChatMessage: [
        _either(
            _given("role", const="assistant"),
            _given("content", type="string"),
            _given("content", type="array", minItems=1),
        )
    ],
    ChatBody: [_either({"properties": {"top_logprobs": {"enum": [0, None]}}}, _given("logprobs", const=True))],
    TextBody: [
        _either({"properties": {"max_tokens": {"not": {"const": 0}}}}, _given("echo", const=True)),
        _either({"properties": {"echo": {"enum": [False, None]}}}, {"properties": {"stream": {"enum": [False, None]}}}),
    ],
    TokenizeBody: [
        _either(
            {**_given("prompt", **PRESENT), "properties": {"prompt": PRESENT, "messages": ABSENT}},
            {
                "required": ["messages"],
                "properties": {
                    "messages": PRESENT,
                    "prompt": ABSENT,
                    "add_special_tokens": {"enum": [False, None]},
                },
            },
        )
    ],
}
"""What the models check of fields together."""


class ErrorObject(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """OpenAI's error object."""

    error: ErrorObject


def document(model: Model, keyed: bool) -> dict[str, Any]:
    """The document of a server of `model`; `keyed`: it asks for API keys."""
    always = [403, *([401] if keyed else [])]
    paths: dict[str, Any] = {path: {"post": _post(path, always)} for path in POSTS}
    paths |= {path: {"get": _get(path, text, always)} for path, text in GETS.items()}
    answers = {"200": {"description": "Prometheus text", "content": {"text/plain": {"schema": {"type": "string"}}}}}
    paths["/metrics"] = {"get": {"summary": "Counters of the engine", "responses": {**answers, **_errors(always)}}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "tapeout", "version": "1", "description": f"An OpenAI-compatible server of {model.name}"},
        "paths": paths,
        "components": {"schemas": _schemas(model), **({"securitySchemes": _scheme()} if keyed else {})},
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


def _schemas(model: Model) -> dict[str, Any]:
    models: list[Any] = [(each, "validation") for each in (*BODIES, ErrorBody)]
    _, found = models_json_schema(models, ref_template="#/components/schemas/{model}")
    schemas = found["$defs"]
    for body, _ in POSTS.values():
        schemas[body.__name__]["properties"]["model"] = {"const": model.name}
    for body in BODIES:
        for field in body.known:
            schemas[body.__name__]["properties"].setdefault(field.name, _neutral(field))
    for body in (ChatBody, TextBody):
        properties = schemas[body.__name__]["properties"]
        stop = properties["stop"]
        properties["stop"] = {"anyOf": [stop["items"], stop]}
        for limit in {"max_tokens", "max_completion_tokens"} & properties.keys():
            properties[limit] = {
                "type": "integer",
                "minimum": 0 if body is TextBody else 1,
                "maximum": model.max_length,
            }
    _bound_ids(schemas[TextBody.__name__]["properties"]["prompt"], model.vocabulary_size)
    _bound_ids(schemas[DetokenizeBody.__name__]["properties"]["tokens"], model.vocabulary_size)
    for body in BODIES:
        properties, needed = schemas[body.__name__]["properties"], schemas[body.__name__].get("required", ())
        for name in properties.keys() - set(needed):
            properties[name] = _or_null(properties[name])
    for body, rules in RULES.items():
        schemas[body.__name__]["allOf"] = rules
    return schemas


def _bound_ids(schema: dict[str, Any], vocabulary: int) -> None:
    """Every integer in the schema is a token id."""
    if schema.get("type") == "integer":
        schema |= {"minimum": 0, "maximum": vocabulary - 1}
    for part in [*schema.get("anyOf", ()), *([schema["items"]] if "items" in schema else ())]:
        _bound_ids(part, vocabulary)


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    """null means the default everywhere."""
    null = {"type": "null"}
    choices = schema.get("anyOf", [schema])
    return schema if null in choices else {**(schema if "anyOf" in schema else {}), "anyOf": [*choices, null]}


def _neutral(field: Known) -> dict[str, Any]:
    if field.label is not None:
        return {"type": LABELS[field.label], "description": "Taken, and without effect"}
    return {"enum": list(field.neutral), "description": "Taken at these values only, which change nothing"}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _scheme() -> dict[str, Any]:
    return {"key": {"type": "http", "scheme": "bearer"}}
