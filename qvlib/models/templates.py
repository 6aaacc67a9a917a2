"""Chat templates: how a tokenizer writes a conversation, where a reply begins and how it ends.

A reply that begins with known words is asked for as the template itself writes such a turn, so that
a prompt with its reply is how the next prompt begins, whatever stands around a turn: a blank, a
channel, a closed thought.
"""

from __future__ import annotations

import functools
import re
from datetime import date
from typing import Any

from jinja2 import TemplateError

from qvlib.base.errors import QvlibError, one_line
from qvlib.models.replies import THOUGHT_BEGIN, THOUGHT_END
from qvlib.models.tokenizers import begins_with_bos, continued

Message = dict[str, str]
# For models without a template of their own, such as those that were not tuned to chat. The engine
# drops a line break after a block.
PLAIN = (
    "{% for m in messages %}{{ m['role'] | capitalize }}: {{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}Assistant: {% endif %}"
)
# What a template that prints today's date prints: the day that Llama 3's falls back to.
TODAY = date(2024, 7, 26)
_CLOCK = "strftime_now"
_PROBE = "qvlib probe"
_SYSTEM, _FIRST, _SECOND = "qvlib rules", "qvlib asks", "qvlib answers"
# What template engines raise, and what Python raises within them.
_FAILURES = (TemplateError, ValueError, TypeError, LookupError, ArithmeticError)


def prepare(tokenizer: Any) -> None:
    """Give a tokenizer one template: its default, or else the plain one, with a fixed date.

    The plain one begins as the tokenizer begins a text: with its BOS, or without.
    """
    if not tokenizer.chat_template:
        tokenizer.chat_template = ("{{ bos_token }}" if begins_with_bos(tokenizer) else "") + PLAIN
    if isinstance(tokenizer.chat_template, dict) and "default" in tokenizer.chat_template:
        tokenizer.chat_template = tokenizer.chat_template["default"]
    if isinstance(tokenizer.chat_template, str) and prints_date(tokenizer):
        clock = _stopped_clock()
        tokenizer.chat_template = clock + tokenizer.chat_template.removeprefix(clock)


def prints_date(tokenizer: Any) -> bool:
    """Whether a tokenizer's template prints a date: that of ``TODAY``."""
    return _CLOCK in str(tokenizer.chat_template)


def render(tokenizer: Any, messages: list[Message], begun: str = "") -> str:
    """A conversation by the tokenizer's chat template, up to where the reply begins.

    begun: the reply's first words, which the text then ends with. Where a template has no system
    role, or writes it elsewhere than at the beginning, its text goes before the first user's.
    """
    if messages[0]["role"] == "system" and not _begins_with_system(tokenizer):
        system, first, *rest = messages
        messages = [user_says(f"{system['content']}\n\n{first['content']}"), *rest]
    if not begun:
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    turns = [*messages, assistant_says(f"{begun} {_PROBE}")]
    return tokenizer.apply_chat_template(turns, tokenize=False).rpartition(f" {_PROBE}")[0]


def opens_thought(text: str) -> bool:
    """Whether a text ends within a thought of the model."""
    return bool(_opened(text))


def thought_end(text: str) -> str:
    """What closes the thought that a text ends within; empty where it ends within none."""
    mark = _opened(text)
    tag = re.fullmatch(r"([<\[◁])([\w:]+).*([>\]▷])", mark)
    closing = f"{tag[1]}/{tag[2]}{tag[3]}" if tag else mark.replace("begin", "end")
    return f"\n{closing}\n\n" if mark else ""


def _opened(text: str) -> str:
    """The mark that begins the thought which a text ends within."""
    mark = ""
    for begin in THOUGHT_BEGIN.finditer(text):
        mark = begin[0] if THOUGHT_END.search(text, begin.end()) is None else ""
    return mark


@functools.cache
def ending(tokenizer: Any) -> tuple[str, int]:
    """(what stands between a reply and the token that ends it, that token's id).

    The token is the end of sequence where the template names none.
    """
    told = [user_says("x"), assistant_says(_PROBE), user_says("x")]
    after = tokenizer.apply_chat_template(told, tokenize=False).partition(_PROBE)[2]
    end = after.lstrip()
    ids = tokenizer(end, add_special_tokens=False)["input_ids"]
    if ids and ids[0] in {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}:
        return after[: len(after) - len(end)], ids[0]
    return "", tokenizer.eos_token_id


def check(tokenizer: Any, name: Any, begun: str) -> None:
    """Refuse a tokenizer by whose template and tokens no conversation can be kept exactly.

    begun: what replies begin with; empty where the model thinks first.

    Raises:
        QvlibError: names the model and what is wrong with its template or its tokens.
    """
    templates = tokenizer.chat_template
    if isinstance(templates, dict) and "default" not in templates:
        raise QvlibError(
            f"{name}: of its chat templates {', '.join(sorted(templates))} none is named default; "
            "save its tokenizer with the one to use as chat_template"
        )
    turns = [user_says(_FIRST), assistant_says(f"{begun} {_PROBE}".strip()), user_says(_SECOND)]
    try:
        told = tokenizer.apply_chat_template(turns, tokenize=False)
        text = render(tokenizer, [system_says(_SYSTEM), turns[0]], begun)
    except _FAILURES as error:
        raise QvlibError(
            f"{name}: its chat template fails ({one_line(error, 100)}); mend chat_template in its "
            "tokenizer's files, or remove it for a plain conversation"
        ) from None
    said = all(part in told for part in (_FIRST, _PROBE, _SECOND))
    if not said or not text or _SYSTEM not in text:
        raise QvlibError(
            f"{name}: its chat template leaves out turns of a conversation; mend chat_template in "
            "its tokenizer's files, or remove it for a plain conversation"
        )
    if begun and opens_thought(text[text.rindex(_FIRST) :]):
        raise QvlibError(
            f"{name}: its chat template asks for a thought before each reply; set thoughts: true"
        )
    for action in ("search[Red lamp, 40.00]", "open door"):
        reply = f" {action}" if begun else f"Action: {action}"
        ids, whole = (
            tokenizer(part, add_special_tokens=False)["input_ids"] for part in (text, text + reply)
        )
        alone = continued(tokenizer, tail(text), reply)
        written = tokenizer.decode(alone, clean_up_tokenization_spaces=False)
        if [*ids, *alone] != whole or written.strip() != reply.strip():
            raise QvlibError(
                f"{name}: its tokenizer cannot write {action!r} after a prompt and read it again "
                f"(it reads {written.strip()!r:.80}); use a model whose tokens spell any text"
            )


def tail(text: str) -> str:
    """As much of a prompt's end as can touch the tokens of its reply: its last line with words."""
    return text[text.rstrip("\n").rfind("\n") + 1 :]


@functools.cache
def _begins_with_system(tokenizer: Any) -> bool:
    """Whether a template writes the system's text before all else, at every step the same."""
    told = [system_says(_SYSTEM), user_says(_FIRST), assistant_says(_PROBE), user_says(_SECOND)]
    try:
        short, long = (
            tokenizer.apply_chat_template(turns, tokenize=False).partition(_FIRST)[0]
            for turns in (told[:2], told)
        )
    except _FAILURES:  # there is no such role
        return False
    return _SYSTEM in short and short == long


def _stopped_clock() -> str:
    """``strftime_now`` of the template engine as a macro that knows one day, at midnight."""
    known = ("-d", "-m", *"YymdbBaAjeHMSpI")
    spelled = "".join(f"|replace('%{c}', '{TODAY.strftime('%' + c)}')" for c in known)
    return f"{{%- macro {_CLOCK}(format) -%}}{{{{ format{spelled} }}}}{{%- endmacro -%}}"


def system_says(content: str) -> Message:
    """A turn of the system."""
    return {"role": "system", "content": content}


def user_says(content: str) -> Message:
    """A turn of the user."""
    return {"role": "user", "content": content}


def assistant_says(content: str) -> Message:
    """A turn of the model."""
    return {"role": "assistant", "content": content}
