"""The HTTP server: OpenAI's chat and text completions, models, health and metrics, over one engine."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send
from transformers import PreTrainedTokenizerFast

from common.errors import UserError
from models.text.detokenize import Detokenizer
from models.text.prompt import prompt_ids
from serve.api.echo import echoed
from serve.api.jobs import Hub, Job
from serve.api.protocol import Body, ChatBody, Refusal, TextBody, refuse_invalid, refuse_user_error
from serve.api.replies import Placed, Reply, placed, text_logprobs, usage
from serve.api.text import Completion, Delta, Vocabulary
from serve.engine.request import Sampling

CLIENT_GONE = 499
"""nginx's status for a client that closed its connection; nobody reads it."""


@dataclass(frozen=True)
class Model:
    """What the endpoints need to know about the model that is served."""

    name: str
    tokenizer: PreTrainedTokenizerFast
    max_length: int
    vocabulary_size: int
    created: int


class EventStream(StreamingResponse):
    """Server-sent events of a job, which is closed however the stream ends, even before its first event."""

    def __init__(self, job: Job, events: AsyncIterator[str]):
        super().__init__(events, media_type="text/event-stream")
        self.job = job

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.job.close()


class Endpoints:
    """The two completion endpoints."""

    def __init__(self, hub: Hub, model: Model):
        self.hub, self.model, self.vocabulary = hub, model, Vocabulary(Detokenizer(model.tokenizer.backend_tokenizer))

    async def chat(self, body: ChatBody, request: Request) -> Response:
        self._check_name(body)
        prompt = prompt_ids(self.model.tokenizer, [message.plain() for message in body.messages])
        most = body.most_tokens or max(1, self.model.max_length - len(prompt))
        self._check_prompt(prompt, most)
        job = self.hub.submit([prompt], body.n, _sampling(body, most), score=False)
        reply = self._reply(body, chat=True, logprobs=body.logprobs, top=body.top_logprobs)
        if body.stream:
            return EventStream(job, self._events(job, body, reply))
        await _unless_gone(request, job, self._collect(job, body))
        choices = [reply.choice(i, completion) for i, completion in enumerate(job.completions)]
        return JSONResponse(reply.whole(choices, _usage(job), prompt))

    async def text(self, body: TextBody, request: Request) -> Response:
        self._check_name(body)
        given = body.prompts()
        prompts = [self.model.tokenizer(p).input_ids if isinstance(p, str) else p for p in given]
        for prompt in prompts:
            self._check_prompt(prompt, body.max_tokens)
        score = body.echo and body.logprobs is not None
        job = self.hub.submit(prompts, body.n, _sampling(body, body.max_tokens), score)
        reply = self._reply(body, chat=False, logprobs=body.logprobs is not None, top=body.logprobs or 0)
        if body.stream:
            return EventStream(job, self._events(job, body, reply))
        await _unless_gone(request, job, self._collect(job, body))
        choices = [self._text_choice(body, job, reply, i, given) for i in range(len(given) * body.n)]
        return JSONResponse(reply.whole(choices, _usage(job), prompts[0]))

    def _text_choice(
        self, body: TextBody, job: Job, reply: Reply, i: int, given: list[str | list[int]]
    ) -> dict[str, Any]:
        number = i // body.n
        done = job.completions[i] if job.completions else Completion(self.vocabulary.detokenizer)
        choice = reply.choice(i, done)
        if not job.completions:
            choice["finish_reason"] = "length"
        if body.echo:
            shown, starts = echoed(self.model.tokenizer, self.vocabulary, given[number])
            choice["text"] = shown + done.text
            if number in job.scores:
                ids, tokens = job.requests[number].prompt, [None, *job.scores[number]]
                begin = next((i for i, start in enumerate(starts[1:]) if start > 0), len(starts) - 1)
                prompt = [
                    Placed(*one) for one in zip(ids, starts, (i == begin for i in range(len(ids))), tokens, strict=True)
                ]
                answer = placed(done.tokens, [len(shown) + start for start in done.offsets], begins=True)
                choice["logprobs"] = text_logprobs([*prompt, *answer], self.vocabulary, body.logprobs or 0)
        return choice

    def _reply(self, body: Body, *, chat: bool, logprobs: bool, top: int) -> Reply:
        return Reply(
            self.model.name, self.vocabulary, chat=chat, logprobs=logprobs, top=top, token_ids=body.return_token_ids
        )

    def _check_name(self, body: Body) -> None:
        if body.model != self.model.name:
            what = f"the model {body.model!r} is not served here; {self.model.name!r} is"
            raise Refusal(404, what, param="model", code="model_not_found")

    def _check_prompt(self, prompt: list[int], most: int) -> None:
        if not prompt:
            raise Refusal(400, "the prompt is empty", param="prompt", code="invalid_parameter")
        if not all(0 <= token < self.model.vocabulary_size for token in prompt):
            raise Refusal(400, "the prompt has an id outside the vocabulary", param="prompt", code="invalid_parameter")
        if len(prompt) + most > self.model.max_length:
            what = f"the prompt has {len(prompt)} tokens; with max_tokens {most} that exceeds {self.model.max_length}"
            raise Refusal(400, what, param="max_tokens", code="context_length_exceeded")

    async def _collect(self, job: Job, body: Body) -> None:
        async for _ in job.deltas(self.vocabulary.detokenizer, body.stop):
            pass

    async def _events(self, job: Job, body: Body, reply: Reply) -> AsyncIterator[str]:
        seen: set[int] = set()
        try:
            async for choice, delta in job.deltas(self.vocabulary.detokenizer, body.stop):
                if _worth_sending(delta, body):
                    yield _event(reply.chunk(choice, delta, first=choice not in seen))
                    seen.add(choice)
            if body.stream_options is not None and body.stream_options.include_usage:
                yield _event(reply.last(_usage(job)))
        except Refusal as refusal:
            yield _event(refusal.body())
        yield "data: [DONE]\n\n"


def _worth_sending(delta: Delta, body: Body) -> bool:
    return bool(delta.text or delta.tokens or delta.finish)


def _event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False, separators=(',', ':'))}\n\n"


def _usage(job: Job) -> dict[str, int]:
    return usage(sum(len(r.prompt) for r in job.requests), sum(len(c.tokens) for c in job.completions))


def _sampling(body: Body, most: int) -> Sampling:
    seed = secrets.randbits(64) if body.seed is None else body.seed % 2**64
    return Sampling(body.temperature, body.top_p, seed, most, body.ignore_eos)


async def _unless_gone(request: Request, job: Job, work: Awaitable[None]) -> None:
    """Await the work, but give it up when the client hangs up."""

    async def hung_up() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, watching = asyncio.ensure_future(work), asyncio.ensure_future(hung_up())
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise Refusal(CLIENT_GONE, "the client closed the connection")
        working.result()
    finally:
        working.cancel()
        watching.cancel()
        job.close()


def build_app(hub: Hub, model: Model) -> FastAPI:
    """The application; its lifespan starts the engine's thread and ends it."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        hub.start(asyncio.get_running_loop())
        yield
        await asyncio.to_thread(hub.engine.stop)

    app = FastAPI(title="tapeout", lifespan=lifespan, docs_url=None, redoc_url=None)
    endpoints = Endpoints(hub, model)
    app.add_api_route("/v1/chat/completions", endpoints.chat, methods=["POST"])
    app.add_api_route("/v1/completions", endpoints.text, methods=["POST"])

    @app.get("/health")
    async def health() -> Response:
        error = hub.engine.error
        status = {"status": "ok"} if error is None else {"status": "failed", "reason": str(error)}
        return JSONResponse(status, 200 if error is None else 503)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        entry = {"id": model.name, "object": "model", "created": model.created, "owned_by": "tapeout"}
        return {"object": "list", "data": [{**entry, "max_model_len": model.max_length}]}

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(hub.engine.metrics.text(), media_type="text/plain; version=0.0.4")

    _add_error_handlers(app)
    return app


def _add_error_handlers(app: FastAPI) -> None:
    def answer(refusal: Refusal) -> Response:
        headers = {"retry-after": "1"} if refusal.status == 429 else None
        return JSONResponse(refusal.body(), refusal.status, headers)

    @app.exception_handler(Refusal)
    async def refused(_: Request, error: Refusal) -> Response:
        return answer(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        return answer(refuse_invalid(list(error.errors())))

    @app.exception_handler(UserError)
    async def user_error(_: Request, error: UserError) -> Response:
        return answer(refuse_user_error(error))

    @app.exception_handler(HTTPException)
    async def no_route(_: Request, error: HTTPException) -> Response:
        return answer(Refusal(error.status_code, str(error.detail)))
