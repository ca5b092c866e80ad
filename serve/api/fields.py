"""Request fields of OpenAI's API and vLLM's that this server knows but does not act on, with their neutral values.

At those they are taken, at any other value refused by name. Fields that it acts on are in `serve.api.protocol`.

null means the default everywhere, and is not listed.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

NO_TOOLS = "this server calls no tools"


@dataclass(frozen=True)
class Known:
    """`neutral`: values that change nothing. `label`: the JSON type whose every value changes nothing here.
    `why` others are refused."""

    name: str
    neutral: tuple[Any, ...] = ()
    label: type | None = None
    why: str = "not supported by this server at this value"

    def takes(self, value: Any) -> bool:
        if self.label is not None and type(value) is self.label:
            return True
        return any(same(value, neutral) for neutral in self.neutral)

    def refusal(self) -> str:
        if self.label is not None:
            return f"it must be a JSON {'string' if self.label is str else 'object'}"
        allowed = " or ".join(json_text(value) for value in self.neutral)
        return f"{self.why}; {allowed} is accepted, as it changes nothing"


def same(value: Any, neutral: Any) -> bool:
    """Equality of JSON values: 1 is 1.0, and neither is true."""
    if isinstance(value, bool) or isinstance(neutral, bool):
        return value is neutral
    if isinstance(value, int | float) and isinstance(neutral, int | float):
        return value == neutral
    return type(value) is type(neutral) and value == neutral


def json_text(value: Any) -> str:
    names = {True: "true", False: "false"}
    return names[value] if isinstance(value, bool) else repr(value).replace("'", '"')


KNOWN: tuple[Known, ...] = (
    # OpenAI: choices that a plain text answer leaves open
    Known("tools", ([],), why=NO_TOOLS),
    Known("tool_choice", ("none", "auto"), why=NO_TOOLS),
    Known("parallel_tool_calls", (True, False)),
    Known("functions", ([],), why=NO_TOOLS),
    Known("function_call", ("none", "auto"), why=NO_TOOLS),
    Known("response_format", ({"type": "text"},)),
    Known("modalities", (["text"],)),
    Known("logit_bias", ({},)),
    Known("best_of", (1,)),
    Known("suffix", ("",)),
    Known("store", (False,)),
    Known("service_tier", ("auto", "default")),
    Known("verbosity", ("medium",)),
    Known("frequency_penalty", (0,)),
    Known("presence_penalty", (0,)),
    # OpenAI: labels for the operator of a service
    Known("metadata", label=dict),
    Known("user", label=str),
    Known("safety_identifier", label=str),
    Known("prompt_cache_key", label=str),
    # vLLM and Hugging Face: sampling
    Known("top_k", (-1, 0)),
    Known("min_p", (0,)),
    Known("repetition_penalty", (1,)),
    Known("length_penalty", (1,)),
    Known("min_tokens", (0,)),
    Known("stop_token_ids", ([],)),
    Known("bad_words", ([],)),
    Known("logits_processors", ([],)),
    Known("use_beam_search", (False,)),
    Known("early_stopping", (False,)),
    Known("thinking_token_budget", (-1,)),
    # vLLM: text and templates
    Known("include_stop_str_in_output", (False,)),
    Known("skip_special_tokens", (True,)),
    Known("spaces_between_special_tokens", (True,)),
    Known("return_tokens_as_token_ids", (False,)),
    Known("include_reasoning", (True,)),
    Known("chat_template_kwargs", ({},)),
    Known("documents", ([],)),
    Known("mm_processor_kwargs", ({},)),
    Known("media_io_kwargs", ({},)),
    Known("vllm_xargs", ({},)),
    Known("priority", (0,)),
    Known("request_id", label=str),
)

CHAT: tuple[Known, ...] = (
    *KNOWN,
    Known("echo", (False,)),
    Known("add_generation_prompt", (True,)),
    Known("continue_final_message", (False,)),
    Known("add_special_tokens", (False,)),
)
TEXT: tuple[Known, ...] = (*KNOWN, Known("add_special_tokens", (True,)))
STREAM_OPTIONS: tuple[Known, ...] = (Known("include_obfuscation", (False,)),)
MESSAGE: tuple[Known, ...] = (
    Known("name", label=str),
    Known("refusal", ("",)),
    Known("tool_calls", ([],), why=NO_TOOLS),
    Known("tool_call_id", ("",), why=NO_TOOLS),
    Known("annotations", ([],)),
    Known("reasoning", ("",)),
    Known("reasoning_content", ("",)),
)


def without_neutral(given: dict[str, Any], known: tuple[Known, ...], acted: Collection[str]) -> dict[str, Any]:
    """The fields that are left to act on, all of them in `acted`; raises NotTaken for the first that cannot be."""
    table = {field.name: field for field in known}
    left: dict[str, Any] = {}
    for name, value in given.items():
        if value is None:
            continue
        if name in table:
            if not table[name].takes(value):
                raise NotTaken(name, table[name].refusal())
        elif name in acted:
            left[name] = value
        else:
            raise NotTaken(name, "not supported by this server")
    return left


class NotTaken(ValueError):
    """A field that nobody knows, or a known one at a value that would have to be acted on."""

    def __init__(self, name: str, why: str):
        super().__init__(f"{name}: {why}")
        self.name, self.why = name, why
