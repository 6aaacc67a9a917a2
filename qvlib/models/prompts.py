"""From a state to a prompt and from a reply to an action.

The compact style is for small models: instruction, actions so far, current page, in lower case and
without commas and colons. Every word has a blank before it, so that a word is the same token in an
instruction and in a reply. Item identifiers (eight characters or more that mix letters and digits)
are shown as #1, #2, ... in order of appearance: a small model copies one token better than many.
Words of the page that the instruction has too are marked, and a reply that the instruction contains
quotes it with the word before it (`` click color red``): what fits the task is what a small model
is slowest to learn to see and to copy. An identifier says nothing, so a reply that names one quotes
what the page shows of it (`` click #2 $9.0 easy clean harness``): what is scored says what it does.
Where that is longer than what may be quoted, the words that fit the instruction stay.
Words of the instruction that stood on the pages of the item that was opened last are kept, since a
small model that left such a page has else forgotten what it read.

An environment whose pages are not cut into segments by [SEP] gets a transcript instead: what was
seen first (``State.opening``), all actions and what each showed, since what was read earlier is not
on the page. Nothing is cut or marked
there, and a prompt starts with the prompt and the reply of the step before, what that quotes
included. Where actions take free text, proper names are aliases as identifiers are.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from qvlib.core.types import State
from qvlib.models.proper_names import Names

IDENTIFIER = re.compile(r"\b(?=[a-z0-9]*[0-9])(?=[a-z0-9]*[a-z])[a-z0-9]{8,}\b")
ACTION = re.compile(r"(\w+)\[(.*)\]", re.DOTALL)
TASK, DID, READ, PAGE = "<task>", "<did>", "<read>", "<page>"
ACT, FITS, END = "<act>", "<fits>", "<end>"
SPECIAL = (TASK, DID, READ, PAGE, ACT, FITS, END)
SEGMENT_WORDS = 10
SHORT = 3  # letters of words such as "and", which say nothing of an item by themselves
WORDS = "description_words"  # a tokenizer's own setting, by which a saved model is prompted again


@dataclass(frozen=True, slots=True)
class Prompt:
    """The text a model reads, and how actions and replies stand for each other.

    identifiers: name -> alias. replies: reply -> admissible action, for what the plain form loses.
    free: verbs whose argument is free text, which cannot be listed and so is never quoted.
    verbatim: actions are replies as they are, no ``verb[argument]``: nothing tells the form of
        those that the environment does not list.
    names: the proper names that such text may hold.
    quotes: admissible action -> what its reply quotes of the page, where it is an identifier.
    """

    text: str
    instruction: str = ""
    identifiers: dict[str, str] = field(default_factory=dict)
    replies: dict[str, str] = field(default_factory=dict)
    free: frozenset[str] = frozenset({"search"})
    verbatim: bool = False
    names: Names = field(default_factory=Names)
    quotes: dict[str, str] = field(default_factory=dict)

    @property
    def tail(self) -> str:
        """Nothing: with a blank before each word a reply has the same tokens anywhere."""
        return ""

    def encode(self, action: str) -> str:
        """The reply that stands for an action: `` verb argument``, or the action itself."""
        if self.verbatim:
            return plain(action)
        return self._bare(action) + self.quotes.get(action, "")

    def _bare(self, action: str) -> str:
        match = ACTION.fullmatch(action)
        if not match or match[1] in self.free:
            return plain(_as_words(self.names.hide(action)), self.identifiers)
        verb, argument = plain(match[1]), plain(match[2], self.identifiers)
        quoted = re.search(rf"( \S+){re.escape(argument)}(?= |$)", self.instruction)
        return verb + (quoted[1] if quoted else "") + argument

    def decode(self, reply: str) -> str:
        """The action that a reply stands for; a reply of no known form is returned as it is."""
        if reply in self.replies:
            return self.replies[reply]
        if self.verbatim:
            return reply.strip()
        # What a reply quotes may be wrong or cut off; what it names counts.
        named = [action for action in self.quotes if _begins(reply, self._bare(action))]
        if named:
            return max(named, key=lambda action: len(self._bare(action)))
        gone = _NAMED.match(reply) if self.quotes else None
        if gone and gone[1] not in self.free:
            back = {alias: name for name, alias in self.identifiers.items()}
            return f"{gone[1]}[{back.get(gone[2], gone[2])}]"
        verb, _, argument = self.names.show(reply.strip()).partition(" ")
        return f"{verb}[{argument}]" if argument else reply


_FULL_STOP = re.compile(r"[.!?](?= |$)")
_NAMED = re.compile(r" (\w+) (#\d+)(?= |$|<)")


def _begins(reply: str, bare: str) -> bool:
    return reply == bare or reply.startswith((f"{bare} ", f"{bare}{FITS}"))


def as_cloned(tokenizer: Any) -> Callable[[State], Prompt]:
    """The compact style, with prompts and replies as those that a small model was cloned with."""
    words = int(tokenizer.init_kwargs.get(WORDS, 0))
    return functools.partial(compact, words=words, remember=READ in tokenizer.get_vocab())


def compact(state: State, words: int = 0, remember: bool = True) -> Prompt:
    """Instruction, actions so far, what was read of the item behind the page, current page.

    Segments of a page are cut to ``SEGMENT_WORDS`` words. words: most that a reply quotes of an
    item; 0 = the published form, the bare action. remember: tell what was read.
    """
    if "[SEP]" not in state.observation:
        return _transcript(state, words)
    instruction = state.task.instruction.lower()
    page = state.observation.lower().replace(instruction, "")
    segments = [
        s.split()[:SEGMENT_WORDS] for s in page.split("[sep]") if s.strip() != "instruction:"
    ]
    wanted = frozenset(plain(instruction).split())
    seen = "".join(_marked(plain(" ".join(words)), wanted) for words in segments)
    did = " ".join(_as_words(step.action) for step in state.history)
    names = {
        name: f"#{i + 1}"
        for i, name in enumerate(dict.fromkeys(IDENTIFIER.findall(f"{seen} {did}")))
    }
    read = _remembered(state, instruction, wanted) if remember else ""
    text = (
        f"{TASK}{plain(instruction)}{DID}{plain(did, names)}{READ if read else ''}{read}"
        f"{PAGE}{_aliased(seen, names)}{ACT}"
    )
    quotes = {
        action: _aliased(_marked(_fitting(plain(said), words, wanted), wanted), names)
        for action, said in described(state, max(words, SEGMENT_WORDS) if words else 0).items()
    }
    prompt = Prompt(text, plain(instruction), names, quotes=quotes)
    replies = {
        prompt.encode(action): action for action in state.admissible or () if not _is_free(action)
    }
    return replace(prompt, replies=replies)


def _remembered(state: State, instruction: str, wanted: frozenset[str]) -> str:
    """The instruction's words on the pages of the item opened last that are not seen now.

    Nothing where items are listed: which of them it was would not be told.
    """
    opened = [i for i, step in enumerate(state.history) if step.described]
    if not opened or any(state.descriptions):
        return ""
    pages = [step.observation.lower().replace(instruction, "") for step in state.history]
    now = f"{plain(pages[-1])} "
    found = {
        run
        for page in dict.fromkeys(pages[opened[-1] :])
        for segment in page.split("[sep]")
        for run in _runs(plain(segment), wanted)
        if _says_something(run) and f" {run} " not in now
    }
    return "".join(f" {run}" for run in sorted(found))


def _says_something(run: str) -> bool:
    return any(len(word) > SHORT for word in run.split())


def _runs(segment: str, wanted: frozenset[str]) -> list[str]:
    """The runs of words that the instruction has too."""
    marked = _marked(segment, wanted).split(FITS)[1:]
    return [" ".join(itertools.takewhile(wanted.__contains__, part.split())) for part in marked]


def _fitting(said: str, words: int, wanted: frozenset[str]) -> str:
    """A description of more than ``words`` words as its first word and those that are wanted.

    The first is a product's price. What nobody asked for is longest in a real title, and crowds out
    what decides.
    """
    told = said.split()
    if len(told) <= words:
        return said
    kept = [word for word in told[1:] if word in wanted and len(word) > SHORT]
    return "".join(f" {word}" for word in (told[0], *kept)[:words])


def cut(text: str, words: int) -> str:
    """The first words of a text."""
    return " ".join(text.split()[:words])


def described(state: State, words: int) -> dict[str, str]:
    """Admissible action -> the first words of what is shown of it, where it says nothing itself."""
    texts = dict(zip(state.admissible or (), state.descriptions, strict=False))
    return {action: said for action, text in texts.items() if (said := cut(text, words))}


def _transcript(state: State, words: int) -> Prompt:
    """Instruction, what was seen first, then each action and what it showed.

    Proper names are aliases where an argument is free text.
    """
    free = frozenset(a.partition("[")[0] for a in state.admissible or () if _is_free(a))
    verbatim = state.admissible is None
    names = Names()
    read, hide = (names.read, names.hide) if free else (str, str)
    text = f"{TASK}{plain(read(state.task.instruction))}"
    if state.opening:
        text += f"{PAGE}{plain(read(state.opening))}"
    for step in state.history:
        action = step.action if verbatim else _as_words(hide(step.action))
        quote = plain(hide(cut(step.described, words)))
        text += f"{ACT}{plain(action)}{quote}{END}{PAGE}{plain(read(step.observation))}"
    quotes = {action: plain(hide(said)) for action, said in described(state, words).items()}
    prompt = Prompt(
        f"{text}{ACT}", free=free | {"search"}, verbatim=verbatim, names=names, quotes=quotes
    )
    return replace(
        prompt,
        replies={
            prompt.encode(action): action
            for action in state.admissible or ()
            if not _is_free(action)
        },
    )


def _is_free(action: str) -> bool:
    """Whether a listed action stands for any text: ``verb[<...>]``, unlike ``click[< prev]``."""
    return "[<" in action and action.endswith(">]")


def _as_words(action: str) -> str:
    match = ACTION.fullmatch(action)
    return f"{match[1]} {match[2]}" if match else action


def plain(text: str, names: dict[str, str] | None = None) -> str:
    """Lower case, no commas or colons, one blank before every word, identifiers as aliases."""
    return _aliased(_plain(text), names or {})


@functools.lru_cache(1 << 14)
def _plain(text: str) -> str:
    return "".join(f" {word}" for word in re.sub(r"[,:;]", " ", text.lower()).split())


def _aliased(text: str, names: dict[str, str]) -> str:
    return IDENTIFIER.sub(lambda m: names.get(m[0], m[0]), text) if names else text


def _marked(segment: str, wanted: frozenset[str]) -> str:
    """A mark before each run of words that the instruction has too."""
    marked, fits = [], False
    for word in segment.split():
        if word in wanted and not fits:
            marked.append(FITS)
        fits = word in wanted
        marked.append(f" {word}")
    return "".join(marked)
