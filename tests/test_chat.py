"""Laws of chat templates: rendered as the field renders them, and never trusted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import pytest

from edgegen.errors import InputError
from edgegen.manifest import Chat
from edgegen.runtime.chat import render

CHATML = """
{%- for message in messages %}
    {%- if message['role'] not in ('system', 'user', 'assistant') %}
        {{- raise_exception('role ' + message['role'] + ' is not known') }}
    {%- endif %}
    {{- '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
"""
HELLO = [{"role": "user", "content": "Is 1 < 2 & 'so'? Olá 😀"}]


def test_a_conversation_is_written_turn_by_turn_and_left_open_for_the_answer() -> None:
    messages = [*HELLO, {"role": "assistant", "content": "Yes"}]
    turns = "<|im_start|>user\nIs 1 < 2 & 'so'? Olá 😀<|im_end|>\n<|im_start|>assistant\nYes"
    closed = render(Chat(template=CHATML), messages, add_generation_prompt=False)
    assert closed == turns + "<|im_end|>\n"
    assert render(Chat(template=CHATML), messages) == closed + "<|im_start|>assistant\n"


def test_a_template_sees_the_special_strings() -> None:
    chat = Chat(template="{{ bos_token }}{{ messages[0].role }}{{ eos_token }}", bos_token="<s>")
    assert render(chat, HELLO) == "<s>user"


def test_blocks_take_their_line_with_them() -> None:
    chat = Chat(template="a\n    {% if true %}\nb\n    {% endif %}\nc\n")
    assert render(chat, HELLO) == "a\nb\nc"


def test_templates_have_the_helpers_the_field_gives_them() -> None:
    body = (
        "{{ {'b': '<é>', 'a': 1}|tojson }}{{ [1]|tojson(indent=1) }}{{ strftime_now('%%') }}"
        "{% generation %}g{% endgeneration %}{% for x in [1, 2, 3] %}{% if x == 2 %}{% break %}"
        "{% endif %}{{ x }}{% endfor %}{{ tools is none }}"
    )
    assert render(Chat(template=body), HELLO) == '{"b": "<é>", "a": 1}[\n 1\n]%g1True'


@pytest.mark.parametrize(
    ("template", "line"),
    [
        (CHATML.replace("'user'", "'human'"), "role user is not known"),
        ("{% for %}", "chat template: "),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ nothing.here }}", "undefined"),
        ("{{ strftime_now(1) }}", "TypeError"),
    ],
)
def test_a_template_that_fails_or_refuses_is_one_line(template: str, line: str) -> None:
    with pytest.raises(InputError, match=line) as caught:
        render(Chat(template=template), HELLO)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("messages", "line"),
    [
        ([], "no messages"),
        ([{"role": "user"}], "message 0: content is None"),
        ([*HELLO, {"role": 3, "content": "x"}], "message 1: role is 3"),
        (["hello"], "message 0"),
    ],
)
def test_a_message_is_a_role_and_a_content(messages: list[object], line: str) -> None:
    with pytest.raises(InputError, match=line):
        render(Chat(template=CHATML), cast("list[Mapping[str, str]]", messages))
