"""A conversation as the one text a chat model was trained to read.

Templates come with models, so they are untrusted: they run in jinja2's sandbox, which lets them
read their inputs and nothing else. What templates may call is what the field has settled on
(raise_exception, strftime_now, tojson without HTML escapes, break and continue, generation
blocks), so that a template renders here as it did where the model was trained.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NoReturn, cast

from edgegen import manifest
from edgegen.errors import InputError

if TYPE_CHECKING:
    from jinja2 import Template


def render(
    chat: manifest.Chat,
    messages: Sequence[Mapping[str, str]],
    *,
    add_generation_prompt: bool = True,
) -> str:
    """The prompt for ``messages``, each a ``role`` and a ``content``.

    The text already holds the special tokens: encode it with ``add_special=False``. Raises
    ``InputError`` with the template's own words when it refuses the conversation.
    """
    _check(messages)
    from jinja2 import TemplateError

    try:
        return _compiled(chat.template).render(
            messages=[dict(message) for message in messages],
            tools=None,
            documents=None,
            add_generation_prompt=add_generation_prompt,
            bos_token=chat.bos_token,
            eos_token=chat.eos_token,
        )
    except TemplateError as error:
        raise InputError(f"chat template: {_line(error)}") from error
    except Exception as error:  # a template can fail in any way Python can
        raise InputError(f"chat template: {type(error).__name__}: {_line(error)}") from error


def _check(messages: Sequence[Mapping[str, str]]) -> None:
    if not messages:
        raise InputError("chat: no messages; expected at least one of role and content.")
    example = 'as in {"role": "user", "content": "Hello"}'
    for index, message in enumerate(cast("Sequence[object]", messages)):
        if not isinstance(message, Mapping):
            raise InputError(
                f"chat message {index}: {message!r:.60}; expected a mapping, {example}."
            )
        fields = cast("Mapping[str, object]", message)
        for key in ("role", "content"):
            if not isinstance(value := fields.get(key), str):
                raise InputError(
                    f"chat message {index}: {key} is {value!r:.60}; expected a string, {example}."
                )


@lru_cache(maxsize=8)  # a template is compiled once, not once a turn
def _compiled(template: str) -> Template:
    from jinja2 import nodes
    from jinja2.ext import Extension, LoopControlExtension
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class GenerationBlock(Extension):
        """``{% generation %}`` marks what training scored; here it is its content."""

        tags = {"generation"}  # noqa: RUF012  (jinja2 declares it a plain attribute)

        def parse(self, parser: Parser) -> list[nodes.Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationBlock, LoopControlExtension]
    )
    environment.filters["tojson"] = _tojson
    given = {"raise_exception": _raise, "strftime_now": _strftime_now}
    return environment.from_string(template, globals=given)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


def _raise(message: str) -> NoReturn:
    from jinja2 import TemplateError

    raise TemplateError(message)


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
