"""What a chat model's reply means: the one action it names, as models write it.

Marks, quotes, numbers and signs of a turn's end are no part of an action; what stands in a thought,
or after an observation that the model made up, is none.
"""

from __future__ import annotations

import re

from qvlib.core.types import State

ACTION, THOUGHT = "Action:", "Thought:"
STOP = "\nObservation:"
"""Where a reply may end: what follows is the model's guess of what it will see."""

# What models write a thought between: tags, marks of a family's own, or channels of which the last
# is the reply.
_THOUGHT = r"(?:seed:)?(?:think(?:ing)?|thought|reasoning)|scratchpad"
THOUGHT_END = re.compile(
    rf"</(?:{_THOUGHT})>|\[/THINK\]|◁/think▷|<\|end_of_thought\|>"
    r"|<\|channel\|>final[^<\n]*(?:<\|constrain\|>\w+)?<\|message\|>",
    re.IGNORECASE,
)
THOUGHT_BEGIN = re.compile(
    rf"<(?:{_THOUGHT})(?:\s[^<>\n]*)?>|\[THINK\]|◁think▷|<\|begin_of_thought\|>"
    r"|<\|channel\|>(?:analysis|commentary)",
    re.IGNORECASE,
)
_TURN_END = re.compile(
    r"<\|(?:im_end|end|eot_id|eom_id|endoftext|end_of_text|return)\|>"
    r"|<｜end▁of▁sentence｜>|</s>|<end_of_turn>|<eos>|<\|end_of_solution\|>"
)
_OBSERVED = re.compile(r"^[ \t>#*_]*observation[ \t]*\d*[*_]*[ \t]*[:：]", re.IGNORECASE | re.M)
# "Action: x", "1. **Action 2:** x", "- Action：x"; then the same within a line.
_LABEL = r"action[ \t]*\d*[*_]*[ \t]*[:：]"
_BULLET = r"[ \t>#*_`•-]*(?:\d+[.)][ \t]*)?[ \t*_`]*"
_LABELLED = re.compile(rf"^{_BULLET}{_LABEL}(.*)$", re.IGNORECASE | re.M)
_ON_ITS_LINE = re.compile(rf"^.*\b{_LABEL}(.*)$", re.IGNORECASE | re.M)
_AFTER_THOUGHT = re.compile(rf"^{_BULLET}thought.*\b{_LABEL}(.*)$", re.IGNORECASE | re.M)
# "Action: search" with "Action Input: x" on the next line is search[x].
_WITH_INPUT = re.compile(
    rf"^({_BULLET}{_LABEL})[ \t*_`\"]*(\w+)[ \t*_`\"]*\r?\n"
    rf"{_BULLET}action[ \t]+input[*_]*[ \t]*[:：][ \t*_`\"]*(.+?)[ \t*_`\"\r]*$",
    re.IGNORECASE | re.M,
)
# A form, verb[argument], within marks and quotes.
_FORM = re.compile(rf"{_BULLET}[\"'“‘]?(\w+\[.*\])[\s\"'”’`*_.,;:!?)]*", re.DOTALL)
# Of no width: they stand in replies unseen, and in no list of actions.
_INVISIBLE = re.compile("[\u00ad\u200b\u2060\ufeff]")
# The same before further words on its line: a reason, or what is meant to come after.
_FORM_FIRST = re.compile(
    rf"{_BULLET}[\"'“‘]?(\w+\[[^][\n]*(?:\[[^][\n]*\][^][\n]*)*\])[\"'”’`*_]*[.,;:]?\s+\S"
)
# The same with what the reply quotes of the item that it names, in brackets and to the end of its
# line: it may hold brackets and labels, be cut off, and is no part of the action.
_QUOTED_FORM = r"[\"'“‘]?\w+\[[^][\n]*(?:\[[^][\n]*\][^][\n]*)*\][\"'”’`*_]*"
_QUOTING = re.compile(
    rf"^({_BULLET}(?:{_LABEL}[ \t*_`]*)?{_QUOTED_FORM})[ \t]+\(.*$"
    rf"|^(.*\b{_LABEL}[ \t*_`]*{_QUOTED_FORM})[ \t]+\((?!.*\b{_LABEL}[ \t*_`]*\w+\[).*$",
    re.IGNORECASE | re.M,
)
_QUOTES = {'"': '"', "'": "'", "`": "`", "“": "”", "‘": "’"}


def parse(reply: str, state: State | None = None) -> str:
    """The action of a reply; of one that names none, its text.

    That is what follows its first ``Action:``, on a line of its own before within one, else the
    first bare ``verb[argument]``. Where ``state`` lists actions, it is written as they are: a verb
    in any case, a listed action in any case and spacing.
    """
    action = _named(reply) or _unmarked(_said(reply))
    return action if state is None else _as_listed(action, state)


def unparsable(reply: str, state: State, begun: bool = False) -> bool:
    """Whether a reply names no action, so that ``parse`` gives its text.

    A text that is itself an admissible action, such as ``open fridge``, names it. Where the
    environment lists none, a line that goes on from ``Action:`` does (``begun``: the prompt ends
    so), since only trying tells it from talk.
    """
    if _named(reply) is not None:
        return False
    text = _said(reply)
    if state.admissible is None:
        return not (begun and text and "\n" not in text)
    return _as_listed(_unmarked(text), state) not in state.admissible


def said(reply: str) -> tuple[int, int]:
    """Where what a reply says begins and ends: behind its thoughts, before the end of its turn."""
    ends = [mark.end() for mark in THOUGHT_END.finditer(reply)]
    start = ends[-1] if ends else 0
    cut_off = THOUGHT_BEGIN.search(reply, start)
    stop = cut_off.start() if cut_off else len(reply)
    for end in (_TURN_END, _OBSERVED):
        before, after = _first_part(end, reply[start:stop])
        start, stop = start + before, start + after
    return start, stop


def _first_part(end: re.Pattern[str], text: str) -> tuple[int, int]:
    """Where the first part of a text lies that is not blank, of those between ``end``."""
    start = 0
    for mark in end.finditer(text):
        if text[start : mark.start()].strip():
            return start, mark.start()
        start = mark.end()
    return start, len(text)


def _said(reply: str) -> str:
    """A reply without its thoughts, and without what follows the end of its turn."""
    reply = _INVISIBLE.sub("", reply)
    text = _WITH_INPUT.sub(r"\1 \2[\3]", reply[slice(*said(reply))])
    text = _QUOTING.sub(lambda found: found[1] or found[2], text)
    return text.strip().removeprefix("<|begin_of_solution|>").lstrip()


def _named(reply: str) -> str | None:
    text = _said(reply)
    for found in _LABELLED.findall(text):
        first = _FORM_FIRST.match(found)
        alone = first and (not _form(found) or re.search(r"\w\[", found[first.end(1) :]))
        action = first[1] if alone else _unmarked(found)
        if action:
            return action
    lines = text.splitlines()
    on_its_line = [_form(found) for found in _ON_ITS_LINE.findall(text)]
    forms = [form for form in (*on_its_line, *map(_form, lines)) if form]
    if forms:
        return forms[0]
    # "Action:" and the action on the next line, or after a thought.
    below = re.split(rf"^{_BULLET}{_LABEL}[ \t*_]*$", text, maxsplit=1, flags=re.IGNORECASE | re.M)
    told = [*below[1:], *_AFTER_THOUGHT.findall(text)]
    lines = [line for part in told for line in part.splitlines() if not line.startswith("```")]
    lines = [_unmarked(line) for line in lines]
    return next((line for line in lines if line), None)


def _form(text: str) -> str | None:
    match = _FORM.fullmatch(text.strip())
    return match[1] if match else None


def _unmarked(text: str) -> str:
    """An action without the marks and quotes around it."""
    form = _form(text)
    if form:
        return form
    text = text.strip().strip("*`").strip()
    while len(text) > 1 and _QUOTES.get(text[0]) == text[-1]:
        text = text[1:-1].strip()
    return text


def _as_listed(action: str, state: State) -> str:
    """An action as the state's list writes it, where only case, spacing or a full stop differ."""
    listed = state.admissible or ()
    if action in listed:
        return action
    alike = [known for known in listed if _plain(known) == _plain(action)]
    if len(alike) == 1:
        return alike[0]
    verb, bracket, rest = action.partition("[")
    verbs = {known.partition("[")[0] for known in listed if "[" in known}
    if not bracket or not verbs or verb in verbs:
        return action
    alike = [known for known in verbs if known.lower() == verb.lower()]
    if len(alike) == 1:
        return f"{alike[0]}[{rest}"
    # A verb that is not listed now is written as those that are.
    return f"{verb.lower()}[{rest}" if all(known == known.lower() for known in verbs) else action


def _plain(action: str) -> str:
    return " ".join(_INVISIBLE.sub("", action).lower().rstrip(". ").split())


__all__ = [
    "ACTION",
    "STOP",
    "THOUGHT",
    "THOUGHT_BEGIN",
    "THOUGHT_END",
    "parse",
    "said",
    "unparsable",
]
