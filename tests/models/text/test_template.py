"""Chat templates: what transformers renders, on a pinned day, and an error at once for whatever does not end."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from common.errors import UserError
from data.config import DataConfig
from models.text.day import DAY, NOTE
from models.text.prompt import encode, load_tokenizer, prompt_ids
from models.text.template import TemplateFault, pin_day, pinned_day, template_digest, template_of

SAID: list[dict[str, Any]] = [
    {"role": "system", "content": "rules"},
    {"role": "user", "content": "ask <é>"},
    {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {"a": [1, "é"]}}}]},
    {"role": "tool", "content": "ok", "name": "f"},
    {"role": "assistant", "content": " tell ", "reasoning_content": "why"},
]
TOOLS: list[Any] = [{"type": "function", "function": {"name": "f", "parameters": {"z": 1, "a": "<b>"}}}]
USES = {
    "globals": "{{ bos_token }}{% set n = namespace(i=0) %}{% for m in messages %}{% set n.i = n.i + 1 %}{{ n.i }}"
    "{{ dict(a=1).a }}{{ m.content | trim }}{% endfor %}",
    "json": "{{ tools | tojson }}{{ tools | tojson(indent=2) }}{% for m in messages %}"
    "{% for c in m.tool_calls or [] %}{{ c.function.arguments | tojson }}{% endfor %}{% endfor %}",
    "thoughts": "{% for m in messages %}{{ m.thinking or m.reasoning_content }}{{ 'name' in m }}{% endfor %}",
    "loops": "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ loop.index }}{{ loop.length }}"
    "{{ loop.last }}{{ loop.previtem.role }}{{ loop.nextitem.role }}{% if loop.index > 3 %}{% break %}{% endif %}"
    "{% else %}none{% endfor %}{% for m in messages | selectattr('role', 'equalto', 'tool') %}"
    "{{ loop.length }}{{ m.content }}{% endfor %}",
    "generation": "{% for m in messages %}{% generation %}{% set x = 1 %}{{ m.content }}{{ loop.index }}"
    "{% endgeneration %}{{ x is defined }}{% endfor %}",
    "macros": "{% macro show(m, s='-') %}{{ s ~ m.role ~ s }}{% endmacro %}{% for m in messages %}{{ show(m) }}"
    "{{ m.content.split(' ')[-1] }}{{ m.content[::-1] }}{{ show({'role': 1_700_000_000}) }}{% endfor %}",
    "texts": "{% for m in messages %}{{ m.content.replace('e', '<e>') }}{{ ', '.join([m.role, 'x']) }}"
    "{{ '{}: {:>5}'.format(m.role, 3) }}{{ 'x'.center(9) }}{{ [m.content, m.role] | join('|') }}"
    "{{ m.content | indent(2) | wordwrap(9) }}{{ messages | map(attribute='role') | unique | sort | list }}"
    "{{ 3.14159 | round(2) }}{% set kept %}{{ m.content }}{% endset %}{{ kept[1:] }}{% filter upper %}é{% endfilter %}"
    "{{ [m.role, (1, m.role), {'a': m.role}] }}{{ m | dictsort | first }}{% endfor %}",
    "blocks": "{% for m in messages %}\n  {% if true %}\n  {{ m.content }}\n  {% endif %}\n{% endfor %}\n",
    "arithmetic": "{{ 'ab' * 3 }}{{ 2 ** 8 }}{{ '%s-%03d' % ('a', 7) }}{{ '%s' | format(1) }}{{ 'x' | center(9) }}"
    "{{ [1] + [2] }}{{ messages | length }}{{ range(4) | list }}{{ messages[1:] | map(attribute='role') | join(',') }}",
}


def make(template: Any) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<bos>", chat_template=template)


@pytest.mark.parametrize("name", USES)
@pytest.mark.parametrize("generate", [False, True])
def test_renders_what_transformers_renders(name: str, generate: bool) -> None:
    tokenizer = make(USES[name] + "{% if add_generation_prompt %}!{% endif %}")
    for messages in (SAID, SAID[1:2]):
        theirs = tokenizer.apply_chat_template(messages, tools=TOOLS, tokenize=False, add_generation_prompt=generate)
        assert template_of(tokenizer).render(messages, TOOLS, generate) == theirs


BIG = "{% set big = 'x' * 9000000 %}"
ENDLESS = {
    "a range": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "a filter's loop": "{% for i in range(9999) %}{% for j in range(9999) | select %}{% endfor %}{% endfor %}",
    "a macro of itself": "{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}",
    "two of itself": "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "a recursive loop": "{% for m in messages recursive %}{{ loop(messages) }}{% endfor %}",
    "a text times a number": "{{ 'a' * 10 ** 11 }}",
    "a list times a number": "{{ [1] * 10 ** 11 }}",
    "a power": "{{ 10 ** 99999999 }}",
    "doubling by ~": "{% set n = namespace(s='aa') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
    "doubling by +": "{% set n = namespace(s='aa') %}{% for i in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}",
    "a wide field": "{{ '%99999999d' % 1 }}",
    "a wide filter": "{{ 'x' | center(10 ** 10) }}",
    "a wide method": "{{ 'x'.center(10 ** 10) }}",
    "text for letters": BIG + "{{ big.replace('x', big) }}",
    "text for letters by a filter": BIG + "{{ big | replace(new=big, old='x') }}",
    "a wide gap": BIG + "{{ range(99999) | map('string') | join(big) }}",
    "a wide gap by a method": BIG + "{{ big.join(['x'] * 9999) }}",
    "a width among the values": "{{ '{:{}}'.format(1, 10 ** 11) }}",
    "wide digits": "{{ ('%.99999f' * 1000) % ((1,) * 1000) }}",
    "many fields": BIG + "{{ ('{0}' * 99999).format(big) }}",
    "many fields of a mapping": BIG + "{{ ('%(a)s' * 99999) | format(a=big) }}",
    "a wide margin": BIG + "{{ ('\n' * 9999) | indent(big) }}",
    "JSON with a margin": "{{ [[1]] | tojson(indent=10 ** 10) }}",
    "one text many times": BIG + "{{ ([big] * 9999) | tojson }}",
    "a list of itself": "{% set n = namespace(l=()) %}{% for i in range(60) %}{% set n.l = (n.l, n.l) %}{% endfor %}",
    "a long block": BIG + "{% set x %}{% for i in range(99999) %}{{ big }}{% endfor %}{% endset %}",
    "a long macro": BIG + "{% macro f() %}{% for i in range(99999) %}{{ big }}{% endfor %}{% endmacro %}{{ f() }}",
    "words of its own": "{% set x %}{% for i in range(99999) %}" + "y" * 9999 + "{% endfor %}{% endset %}",
    "numbers": "{% set n = namespace(i=10) %}{% for i in range(60) %}{% set n.i = n.i * n.i %}{% endfor %}",
    "digits": "{{ 1 | round(10 ** 9, 'ceil') }}",
    "texts that are kept": BIG + "".join(f"{{% set a{i} = big[{i}:] %}}" for i in range(300)),
    "much output": "{% set s = 'a' * 9999999 %}{% for i in range(99999) %}{{ s }}{% endfor %}",
}


@pytest.mark.parametrize("name", ENDLESS)
def test_a_template_that_does_not_end_is_an_error(name: str) -> None:
    with pytest.raises(TemplateFault, match=r"the chat template does not end|is malformed"):
        prompt_ids(make(ENDLESS[name]), SAID[:2])


def test_a_long_conversation_is_not_endless() -> None:
    template = "{% for m in messages %}{% for n in messages %}{% endfor %}{{ m.content.strip().upper() }}{% endfor %}"
    assert len(template_of(make(template)).render(SAID[1:2] * 600, None, False)) == 600 * 7


def test_a_long_row_is_no_fault_of_the_template() -> None:
    template = "{% for m in messages %}{{ (m.content | trim).replace('a', 'b') }}{% endfor %}"
    assert len(template_of(make(template)).render([{"role": "user", "content": "a" * 20_000_000}], None, False)) == 2e7


FAULTS: dict[str, tuple[Any, str]] = {
    "syntax": ("{% for m in messages %}{{ m.content }", "the chat template is malformed"),
    "an unknown filter": ("{{ messages | nothing }}", "the chat template is malformed"),
    "no default": ({"chat": "x", "tool_use": "y"}, "has chat templates chat, tool_use and none named default"),
    "none": (None, "no chat template"),
}
FAILS = ["{{ 'a' + 1 }}", "{{ 1 // 0 }}", "{{ messages[9].content.x }}", "{{ messages.x.y }}", "{% include 'x' %}"]
FAILS += ["{{ 'a'.encode() * 10 ** 11 }}", "{{ 'a'.translate({97: 'b'}) }}", "{{ lipsum() }}"]
FAILS += ["{{ range(10 ** 9) }}", "{{ raise_exception('no') }}", "{{ ''.__class__.__mro__[1] }}", "{{ messages() }}"]


@pytest.mark.parametrize("name", FAULTS)
def test_a_template_at_fault_is_no_fault_of_the_row(name: str) -> None:
    template, message = FAULTS[name]
    with pytest.raises(TemplateFault, match=message) as caught:
        encode(make(template), SAID)
    assert caught.value.where and caught.value.fix


@pytest.mark.parametrize("template", FAILS)
def test_whatever_a_template_raises_is_a_user_error(template: str) -> None:
    with pytest.raises(UserError, match=r"the chat template (fails|refuses)") as caught:
        prompt_ids(make(template), SAID)
    assert caught.value.fix


def test_named_templates_are_chosen_as_transformers_does() -> None:
    tokenizer = make({"default": "d{{ messages | length }}", "tool_use": "t{{ tools | length }}"})
    assert template_of(tokenizer).render(SAID, None, False) == "d5"
    assert template_of(tokenizer).render(SAID, TOOLS, False) == "t1"
    other = make({"default": "d{{ messages | length }}", "tool_use": "other"})
    assert template_digest(tokenizer) != template_digest(other)


DATED = "{% if strftime_now is defined %}{{ strftime_now('%d %b %Y') }}{% endif %}{{ messages[0].content }}"


def test_the_day_is_pinned_and_known_to_have_been_asked_for(tmp_path: Path) -> None:
    tokenizer = make(DATED)
    assert pinned_day(tokenizer) is None
    assert template_of(tokenizer).render(SAID, None, False) == "26 Jul 2024rules"
    assert pinned_day(tokenizer) == DAY == DataConfig.model_validate({"sources": [{"path": "x"}]}).date
    pin_day(tokenizer, "2025-12-31")
    assert template_of(tokenizer).render(SAID, None, False) == "31 Dec 2025rules"
    tokenizer.save_pretrained(tmp_path)
    assert template_of(load_tokenizer(str(tmp_path), "2001-02-03")).render(SAID, None, True) == "03 Feb 2001rules"
    (tmp_path / NOTE).write_text('{"date": "2002-03-04"}')
    assert template_of(load_tokenizer(str(tmp_path))).render(SAID, None, True) == "04 Mar 2002rules"
    for note in ("", "[]", "{}", '{"date": 3}', '{"date": "yesterday"}'):
        (tmp_path / NOTE).write_text(note)
        with pytest.raises(UserError, match="does not say a day") as caught:
            load_tokenizer(str(tmp_path))
        assert caught.value.where == str(tmp_path / NOTE) and caught.value.fix


def test_the_file_of_a_fault_is_named(tmp_path: Path) -> None:
    make("{% if %}").save_pretrained(tmp_path)
    with pytest.raises(TemplateFault) as caught:
        prompt_ids(load_tokenizer(str(tmp_path)), SAID)
    assert caught.value.where == f"{tmp_path / 'chat_template.jinja'}:1"
    (tmp_path / "chat_template.jinja").unlink()
    config = tmp_path / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"chat_template": "{{ 'a' * 10 ** 10 }}"}))
    with pytest.raises(TemplateFault) as caught:
        prompt_ids(load_tokenizer(str(tmp_path)), SAID)
    assert caught.value.where == str(config)
