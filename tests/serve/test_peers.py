"""LiteLLM, LangChain and lm-eval's client against the server; they bring many packages, so they are run by name."""

from typing import Any

import pytest

from tests.serve.conftest import Server

pytestmark = pytest.mark.peers
TURN: Any = [{"role": "user", "content": "a counter"}]


def test_litellm_holds_a_conversation(server: Server) -> None:
    litellm = pytest.importorskip("litellm")
    asked = {"model": "openai/tiny", "api_base": server.url, "api_key": "none", "max_tokens": 4}
    said = litellm.completion(messages=TURN, **asked).choices[0].message
    for turn in (said, said.model_dump()):
        again = litellm.completion(messages=[*TURN, turn, *TURN], **asked)
        assert again.choices[0].finish_reason in ("stop", "length")
    assert len(list(litellm.completion(messages=TURN, stream=True, **asked))) > 1


def test_langchain_holds_a_conversation(server: Server) -> None:
    langchain = pytest.importorskip("langchain_openai")
    chat = langchain.ChatOpenAI(model="tiny", base_url=server.url, api_key="none", max_tokens=4)
    said = chat.invoke([("human", "a counter")])
    assert chat.invoke([("human", "a counter"), said, ("human", "more")]).type == "ai"
    assert list(chat.stream("a counter"))


def test_lm_eval_takes_more_than_four_stops(server: Server, model_folder: Any) -> None:
    completions = pytest.importorskip("lm_eval.models.openai_completions")
    instance = pytest.importorskip("lm_eval.api.instance")
    model = completions.LocalCompletionsAPI(
        model="tiny", base_url=f"{server.url}/completions", tokenizer=str(model_folder), max_length=128
    )
    until = {"until": ["\nclass", "\ndef", "\n#", "\nif", "\nprint", "<eos>"], "max_gen_toks": 8, "do_sample": False}
    asked = instance.Instance("generate_until", {}, ("module", until), 0)
    assert len(model.generate_until([asked])) == 1
