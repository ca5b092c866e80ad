"""The application: routes, guard and error answers around the endpoints."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from common.errors import UserError
from serve.api.bodies import received
from serve.api.errors import Refusal, refuse_user_error
from serve.api.guard import Guard, Rules
from serve.api.jobs import Hub
from serve.api.openapi import document
from serve.api.prompts import Model, Prompts, unknown_model
from serve.api.protocol import DetokenizeBody, TokenizeBody
from serve.api.server import Endpoints


class Status:
    """Endpoints that tell of the server and its model, and run nothing."""

    def __init__(self, hub: Hub, model: Model, keyed: bool):
        self.hub, self.model = hub, model
        entry = {"id": model.name, "object": "model", "created": model.created, "owned_by": "tapeout"}
        self.entry = {**entry, "max_model_len": model.max_length}
        self.document = document(model, keyed)

    async def health(self, _: Request) -> Response:
        """Is the process of any use? A balancer restarts it where not."""
        return self._told(None if self.hub.engine.error is None else str(self.hub.engine.error))

    async def ready(self, _: Request) -> Response:
        """Will it take a request now? It listens only once it is warm."""
        error = self.hub.engine.error
        return self._told("shutting down" if self.hub.draining else None if error is None else str(error))

    def _told(self, reason: str | None) -> Response:
        if reason is None:
            return JSONResponse({"status": "ok"})
        return JSONResponse({"status": "failed", "reason": reason}, 503, {"retry-after": "1"})

    async def models(self, _: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self.entry]})

    async def one_model(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name != self.model.name:
            raise unknown_model(name, self.model.name)
        return JSONResponse(self.entry)

    async def metrics(self, _: Request) -> Response:
        return Response(self.hub.engine.metrics.text(), media_type="text/plain; version=0.0.4")

    async def openapi(self, _: Request) -> Response:
        return JSONResponse(self.document)


class Tokens:
    """vLLM's `/tokenize` and `/detokenize`."""

    def __init__(self, prompts: Prompts):
        self.prompts, self.model = prompts, prompts.model

    async def tokenize(self, request: Request) -> Response:
        body = await received(request, TokenizeBody, self.prompts.apart)
        self.prompts.check_name(body.model)
        if body.messages is not None:
            ids = await self.prompts.chat(body.messages)
        else:
            (ids,) = await self.prompts.texts([body.prompt or ""], body.add_special_tokens is not False)
        strings = self.model.tokenizer.convert_ids_to_tokens(ids) if body.return_token_strs else None
        found: dict[str, Any] = {"count": len(ids), "max_model_len": self.model.max_length, "tokens": ids}
        return JSONResponse({**found, "token_strs": strings})

    async def detokenize(self, request: Request) -> Response:
        body = await received(request, DetokenizeBody, self.prompts.apart)
        self.prompts.check_name(body.model)
        self.prompts.check_ids(body.tokens, "tokens")
        decode = self.model.tokenizer.backend_tokenizer.decode
        return JSONResponse({"prompt": await self.prompts.apart(decode, body.tokens, False)})


def build_app(hub: Hub, model: Model, rules: Rules, origins: tuple[str, ...] = ()) -> Starlette:
    """The application; its lifespan starts the engine's thread and ends it. `origins`: sites whose pages may ask."""
    prompts = Prompts(model)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        hub.start(asyncio.get_running_loop())
        yield
        prompts.close()
        await asyncio.to_thread(hub.engine.stop)

    endpoints, tokens = Endpoints(hub, prompts), Tokens(prompts)
    status = Status(hub, model, bool(rules.keys))
    posts = {
        "/v1/chat/completions": endpoints.chat,
        "/v1/completions": endpoints.text,
        "/tokenize": tokens.tokenize,
        "/detokenize": tokens.detokenize,
    }
    gets = {
        "/v1/models": status.models,
        "/v1/models/{name:path}": status.one_model,
        "/health": status.health,
        "/ready": status.ready,
        "/metrics": status.metrics,
        "/openapi.json": status.openapi,
    }
    routes = [Route(path, endpoint, methods=["POST"]) for path, endpoint in posts.items()]
    routes += [Route(path, endpoint, methods=["GET"]) for path, endpoint in gets.items()]
    guards = [Middleware(Guard, rules=rules)]
    if origins:
        cors = Middleware(CORSMiddleware, allow_origins=origins, allow_methods=["GET", "POST"], allow_headers=["*"])
        guards.insert(0, cors)
    handlers = {Refusal: _refused, UserError: _user_error, HTTPException: _no_route, Exception: _broken}
    app = Starlette(routes=routes, middleware=guards, exception_handlers=handlers, lifespan=lifespan)
    app.router.redirect_slashes = False
    return app


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return error.response()


async def _user_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, UserError)
    return refuse_user_error(error).response()


async def _no_route(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    refusal = Refusal(error.status_code, str(error.detail))
    refusal.headers.update(error.headers or {})
    return refusal.response()


async def _broken(_: Request, error: Exception) -> Response:
    """A fault of ours: the log has it, the client an error object without its insides."""
    logging.getLogger(__name__).error("an endpoint failed", exc_info=error)
    return Refusal(500, "the server failed to answer; its log says why").response()
