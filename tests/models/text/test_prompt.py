"""Ids and masks are exact: against transformers' own assistant mask, and against what the answers decode to."""

import random
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from common.errors import UserError
from models.text.prompt import encode, load_tokenizer, pieces, prompt_ids, render, tokenize
from models.text.template import template_digest

CHATML = """\
{%- for m in messages -%}{%- if m['role'] == 'assistant' -%}
{{- '<|im_start|>assistant\n' -}}{%- generation -%}{{- m['content'] + '<|im_end|>' -}}{%- endgeneration -%}{{- '\n' -}}
{%- else -%}{{- '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' -}}{%- endif -%}{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"""
GEMMA3 = """\
{{- bos_token -}}{%- if messages[0]['role'] == 'system' -%}
{%- set first = messages[0]['content'] + '\n\n' -%}{%- set turns = messages[1:] -%}
{%- else -%}{%- set first = '' -%}{%- set turns = messages -%}{%- endif -%}
{%- for m in turns -%}{%- if m['role'] == 'assistant' -%}
{{- '<|turn>model\n' -}}{%- generation -%}{{- m['content'] | trim + '<turn|>' -}}{%- endgeneration -%}{{- '\n' -}}
{%- else -%}{{- '<|turn>user\n' + (first if loop.first else '') + m['content'] | trim + '<turn|>\n' -}}{%- endif -%}
{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|turn>model\n' -}}{%- endif -%}"""
GEMMA4 = """\
{{- bos_token -}}{%- for m in messages -%}{%- if m['role'] == 'assistant' -%}
{{- '<|turn>model\n' -}}{%- if loop.last -%}{{- '<|channel>thought\n<channel|>' -}}{%- endif -%}
{%- generation -%}{{- m['content'] | trim + '<turn|>' -}}{%- endgeneration -%}{{- '\n' -}}
{%- else -%}{{- '<|turn>' + m['role'] + '\n' + m['content'] | trim + '<turn|>\n' -}}{%- endif -%}{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|turn>model\n<|channel>thought\n<channel|>' -}}{%- endif -%}"""
GEMMA4_STOCK = """\
{{- bos_token -}}{%- for m in messages -%}
{{- '<|turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n' + m['content'] | trim + '<turn|>\n' -}}
{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|turn>model\n<|channel>thought\n<channel|>' -}}{%- endif -%}"""
TEMPLATES = {"chatml": CHATML, "gemma3": GEMMA3, "gemma4": GEMMA4}
CONTROL = ["<pad>", "<bos>", "<eos>", "<|turn>", "<turn|>", "<|channel>", "<channel|>", "<|im_start|>", "<|im_end|>"]
PIECES = [
    *[
        "module top (\n  input a\n);",
        "assign q = a & b;",
        " ",
        "  ",
        "\n",
        "\n\n",
        "\t",
        "```verilog\n",
        "\n```",
        "endmodule",
    ],
    *[
        "é",
        "日本語",
        "🙂",
        "👩‍👩‍👧",
        "q <= d;",
        "<",
        "|",
        "model\n",
        "\u200b",
        "{{ x }}",
        "{% raw %}",
        "1'b0",
        "x",
    ],
]


@pytest.fixture(scope="module")
def backend() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=CONTROL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["".join(PIECES), "user\n assistant\n model\n thought\n\n\n"] * 9, trainer)
    return tokenizer


def make(backend: Tokenizer, template: str | None) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(backend.to_str()),
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        additional_special_tokens=CONTROL[3:],
        chat_template=template,
    )


@pytest.fixture(scope="module", params=TEMPLATES)
def tokenizer(request: pytest.FixtureRequest, backend: Tokenizer) -> PreTrainedTokenizerFast:
    return make(backend, TEMPLATES[request.param])


def theirs(tokenizer: PreTrainedTokenizerFast, messages: list[dict[str, str]], **how: Any) -> Any:
    return tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True, **how)


def control_ids(tokenizer: PreTrainedTokenizerFast) -> set[int]:
    return {i for i, token in tokenizer.added_tokens_decoder.items() if token.content in CONTROL}


def conversation(rng: random.Random, spell_control: bool = False) -> list[dict[str, str]]:
    """Random turns; answers never blank, for those the stage drops."""
    pieces = PIECES + ([*CONTROL, "turn|>", "<|", *CONTROL] if spell_control else [])

    def content() -> str:
        while not (text := "".join(rng.choices(pieces, k=rng.randint(1, 9)))).strip():
            pass
        return text

    messages = [{"role": "system", "content": content()}] if rng.random() < 0.3 else []
    for _ in range(rng.randint(1, 3)):
        messages += [{"role": "user", "content": content()}, {"role": "assistant", "content": content()}]
    return messages


def stretches(tokenizer: PreTrainedTokenizerFast, ids: list[int], mask: list[Any]) -> list[tuple[str, bool]]:
    """The text in turns of supervised and not."""
    together = groupby(zip(ids, mask, strict=True), key=lambda one: bool(one[1]))
    return [(str(tokenizer.decode([i for i, _ in group])), on) for on, group in together]


def test_equals_the_mask_of_generation_markers(tokenizer: PreTrainedTokenizerFast) -> None:
    """2,000 conversations. Where content spells a control token, transformers makes it one (its `sanitize` option, that
    keeps it text, refuses to give a mask): there the ids may differ, and text and mask must not, but for the space that
    a token on the border drags along."""
    rng = random.Random(1)
    conversations = [conversation(rng, spell_control=i % 4 == 0) for i in range(2000)]
    ours = tokenize(tokenizer, [render(tokenizer, messages) for messages in conversations])
    spelled = 0
    for messages, (ids, mask) in zip(conversations, ours, strict=True):
        wanted = theirs(tokenizer, messages, return_assistant_tokens_mask=True)
        if any(word in message["content"] for message in messages for word in CONTROL):
            spelled += 1
            both = ((ids.tolist(), mask.tolist()), (wanted["input_ids"], wanted["assistant_masks"]))
            found, given_ = ([(text.strip(), on) for text, on in stretches(tokenizer, *one)] for one in both)
            assert found == given_
            assert tokenizer.decode(ids.tolist()) == tokenizer.decode(wanted["input_ids"])
        else:
            assert ids.tolist() == wanted["input_ids"]
            assert mask.tolist() == [bool(m) for m in wanted["assistant_masks"]]
    assert 300 < spelled < 600


def test_content_never_becomes_a_control_token(tokenizer: PreTrainedTokenizerFast) -> None:
    rng = random.Random(2)
    control = control_ids(tokenizer)
    for _ in range(150):
        messages = conversation(rng, spell_control=True)
        blank = [{**m, "content": "x"} for m in messages]
        wanted = [i for i in encode(tokenizer, blank).ids if i in control]
        encoded = encode(tokenizer, messages)
        assert [i for i in encoded.ids if i in control] == wanted
        assert tokenizer.decode(encoded.ids) == encoded.text
        assert encoded.text == tokenizer.apply_chat_template(messages, tokenize=False)
        sanitized = theirs(tokenizer, messages, sanitize_control_tokens=True)
        assert [i for i in sanitized["input_ids"] if i in control] == wanted


def test_pieces_are_the_text_by_kind(tokenizer: PreTrainedTokenizerFast) -> None:
    rng = random.Random(6)
    control = control_ids(tokenizer)
    for i in range(200):
        rendered = render(tokenizer, conversation(rng, spell_control=i % 2 == 0))
        ((ids, mask),) = tokenize(tokenizer, [rendered])
        found = pieces(tokenizer, rendered)
        together = groupby(found, key=lambda piece: piece.supervised)
        assert [("".join(piece.text for piece in group), on) for on, group in together] == stretches(
            tokenizer, ids.tolist(), mask.tolist()
        )
        assert [piece.text for piece in found if piece.control] == [
            tokenizer.decode([i]) for i in ids.tolist() if i in control
        ]


def test_every_answer_and_its_end_of_turn_is_supervised_and_nothing_else(backend: Tokenizer) -> None:
    tokenizer, rng = make(backend, GEMMA4_STOCK), random.Random(3)
    for spell_control in (False, True):
        for _ in range(100):
            messages = conversation(rng, spell_control)
            encoded = encode(tokenizer, messages)
            answers = [m["content"].strip() + "<turn|>" for m in messages if m["role"] == "assistant"]
            supervised = [i for i, m in zip(encoded.ids, encoded.mask, strict=True) if m]
            assert tokenizer.decode(supervised) == "".join(answers)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(user=st.text(min_size=1, max_size=40), answer=st.text(min_size=1, max_size=40), data=st.data())
def test_ids_start_with_the_prompt_the_server_sends(
    backend: Tokenizer, user: str, answer: str, data: st.DataObject
) -> None:
    template = data.draw(st.sampled_from([GEMMA3, GEMMA4, GEMMA4_STOCK]))
    tokenizer = make(backend, template)
    asked = [{"role": "user", "content": user}]
    prompt = prompt_ids(tokenizer, asked)
    encoded = encode(tokenizer, [*asked, {"role": "assistant", "content": answer}])
    assert encoded.ids[: len(prompt)] == prompt
    assert not any(encoded.mask[: len(prompt)])
    rest = [i for i, m in zip(encoded.ids, encoded.mask, strict=True) if m]
    assert f"{tokenizer.decode(rest)}\n" == tokenizer.decode(encoded.ids[len(prompt) :])


def test_the_empty_thought_of_the_generation_prompt_is_trained_after(backend: Tokenizer) -> None:
    tokenizer = make(backend, GEMMA4_STOCK)
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "one"}]
    messages += [{"role": "user", "content": "and"}, {"role": "assistant", "content": "two"}]
    encoded = encode(tokenizer, messages)
    assert encoded.text == (
        "<bos><|turn>user\nhi<turn|>\n<|turn>model\none<turn|>\n<|turn>user\nand<turn|>\n"
        "<|turn>model\n<|channel>thought\n<channel|>two<turn|>\n"
    )
    supervised = [i for i, m in zip(encoded.ids, encoded.mask, strict=True) if m]
    assert tokenizer.decode(supervised) == "one<turn|>two<turn|>"


def test_a_character_of_several_tokens_stays_whole(backend: Tokenizer) -> None:
    tokenizer = make(backend, "{% for m in messages %}{{ m['content'] }}{% endfor %}")
    encoded = encode(tokenizer, [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y𝔘"}])
    supervised = [i for i, m in zip(encoded.ids, encoded.mask, strict=True) if m]
    assert tokenizer.decode(supervised) == "y𝔘"


def test_a_template_that_drops_the_system_turn_is_an_error(backend: Tokenizer) -> None:
    drops = "{% for m in messages if m['role'] != 'system' %}{{ m['role'] + m['content'] }}<turn|>{% endfor %}"
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "x"}]
    with pytest.raises(UserError, match="drops the system turn"):
        encode(make(backend, drops), [*messages, {"role": "assistant", "content": "y"}])


def test_what_the_template_refuses_is_a_user_error(backend: Tokenizer) -> None:
    refuses = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(UserError, match="roles must alternate"):
        prompt_ids(make(backend, refuses), [{"role": "user", "content": "x"}])
    with pytest.raises(UserError, match="no chat template"):
        prompt_ids(make(backend, None), [{"role": "user", "content": "x"}])
    with pytest.raises(UserError, match="without messages"):
        prompt_ids(make(backend, GEMMA3), [])


def test_a_template_that_hides_an_answer_is_an_error(backend: Tokenizer) -> None:
    hides = "{% for m in messages if m['role'] == 'user' %}{{ m['content'] }}{% endfor %}"
    hides += "{% if add_generation_prompt %}model:{% endif %}"
    with pytest.raises(UserError, match="leaves out an assistant turn"):
        encode(make(backend, hides), [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}])


def test_load_reports_a_missing_and_a_broken_tokenizer(tmp_path: Path, backend: Tokenizer) -> None:
    with pytest.raises(UserError, match=r"no tokenizer\.json"):
        load_tokenizer(str(tmp_path))
    make(backend, GEMMA3).save_pretrained(tmp_path)
    loaded = load_tokenizer(str(tmp_path))
    messages = [{"role": "user", "content": "a <bos>"}, {"role": "assistant", "content": "b"}]
    assert encode(loaded, messages) == encode(make(backend, GEMMA3), messages)
    assert template_digest(loaded) == template_digest(make(backend, GEMMA3)) != template_digest(make(backend, GEMMA4))
    (tmp_path / "tokenizer.json").write_text('{"half')
    with pytest.raises(UserError, match="cannot be read"):
        load_tokenizer(str(tmp_path))
