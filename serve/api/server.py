"""OpenAI's chat and text completions, whole or streamed, over one engine."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Awaitable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from models.text.detokenize import Detokenizer
from serve.api.bodies import received
from serve.api.echo import echoed
from serve.api.errors import Refusal
from serve.api.jobs import Hub, Job
from serve.api.prompts import Prompts
from serve.api.protocol import Body, ChatBody, TextBody
from serve.api.replies import Placed, Reply, placed, text_logprobs, usage
from serve.api.text import Completion, Vocabulary
from serve.engine.request import Sampling

CLIENT_GONE = 499
"""nginx's status for a client that closed its connection; nobody reads it."""


UNBUFFERED = {"cache-control": "no-cache", "x-accel-buffering": "no"}
"""What keeps a proxy from holding events back (the second is nginx's)."""


class EventStream(StreamingResponse):
    """Server-sent events of a job, which is closed however the stream ends, even before its first event."""

    def __init__(self, job: Job, events: AsyncIterator[str]):
        super().__init__(events, media_type="text/event-stream", headers=UNBUFFERED)
        self.job = job

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.job.close()


class Endpoints:
    """The two completion endpoints."""

    def __init__(self, hub: Hub, prompts: Prompts):
        self.hub, self.prompts, self.model = hub, prompts, prompts.model
        self.vocabulary = Vocabulary(Detokenizer(self.model.tokenizer.backend_tokenizer))

    async def chat(self, request: Request) -> Response:
        body = await received(request, ChatBody, self.prompts.apart)
        self.prompts.check_name(body.model)
        self.hub.check_size(1, body.n)
        prompt = await self.prompts.chat(body.messages)
        asked = "max_tokens" if body.max_tokens else "max_completion_tokens"
        self.prompts.check_room(prompt, body.most_tokens, "messages", asked)
        most = body.most_tokens or self.model.max_length - len(prompt)
        job = self.hub.submit([prompt], body.n, _sampling(body, most), score=False)
        reply = self._reply(body, chat=True, logprobs=body.logprobs, top=body.top_logprobs)
        if body.stream:
            return EventStream(job, self._events(job, body, reply))
        await _unless_gone(request, job, self._collect(job, body))
        return await self.prompts.apart(self._chat_answer, job, reply)

    async def text(self, request: Request) -> Response:
        body = await received(request, TextBody, self.prompts.apart)
        self.prompts.check_name(body.model)
        given = body.prompts()
        self.hub.check_size(len(given), body.n)
        prompts = await self.prompts.texts(given)
        for prompt in prompts:
            self.prompts.check_room(prompt, body.max_tokens, "prompt", "max_tokens")
            self.prompts.check_ids(prompt, "prompt")
        score = body.echo and body.logprobs is not None
        job = self.hub.submit(prompts, body.n, _sampling(body, body.max_tokens), score)
        reply = self._reply(body, chat=False, logprobs=body.logprobs is not None, top=body.logprobs or 0)
        if body.stream:
            return EventStream(job, self._events(job, body, reply))
        await _unless_gone(request, job, self._collect(job, body))
        return await self.prompts.apart(self._text_answer, body, job, reply, given)

    def _chat_answer(self, job: Job, reply: Reply) -> Response:
        """An answer may be megabytes of tokens: those of both endpoints are written off the event loop."""
        choices = [reply.choice(i, completion) for i, completion in enumerate(job.completions)]
        return JSONResponse(reply.whole(choices, _usage(job), job.requests[0].prompt))

    def _text_answer(self, body: TextBody, job: Job, reply: Reply, given: list[str | list[int]]) -> Response:
        repeated = [echoed(self.model.tokenizer, self.vocabulary, one) for one in given] if body.echo else []
        choices = [self._text_choice(body, job, reply, i, repeated) for i in range(len(given) * body.n)]
        return JSONResponse(reply.whole(choices, _usage(job), job.requests[0].prompt))

    def _text_choice(
        self, body: TextBody, job: Job, reply: Reply, i: int, repeated: list[tuple[str, list[int]]]
    ) -> dict[str, Any]:
        number = i // body.n
        done = job.completions[i] if job.completions else Completion(self.vocabulary.detokenizer)
        choice = reply.choice(i, done)
        if not job.completions:
            choice["finish_reason"] = "length"
        if body.echo:
            shown, starts = repeated[number]
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

    async def _collect(self, job: Job, body: Body) -> None:
        async for _ in job.deltas(self.vocabulary.detokenizer, body.stop):
            pass

    async def _events(self, job: Job, body: Body, reply: Reply) -> AsyncIterator[str]:
        seen: set[int] = set()
        wanted = body.stream_options
        try:
            async for choice, delta in job.deltas(self.vocabulary.detokenizer, body.stop):
                if delta.text or delta.tokens or delta.finish:
                    running = {"usage": _usage(job)} if wanted and wanted.continuous_usage_stats else {}
                    yield _event(reply.chunk(choice, delta, first=choice not in seen) | running)
                    seen.add(choice)
            if wanted is not None and wanted.include_usage:
                yield _event(reply.last(_usage(job)))
        except Refusal as refusal:
            yield _event(refusal.body())
        yield "data: [DONE]\n\n"


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
