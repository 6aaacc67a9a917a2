"""Proper names as aliases of one token each, for texts whose names no training text held.

``Who directed The Silver Garden?`` becomes ``Who directed #1?``: a small model cannot spell a name
it has never seen, but it learns within minutes to copy a token that stands for one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

MOST = 64  # aliases of a text; later names stay as they are
_PART = r"[A-ZÀ-ÖØ-Þ]\w*(?:[-'’](?!s\b)\w+)*"
_NAME = re.compile(rf"\b{_PART}(?: (?:of )?{_PART})*")
_ALIAS = re.compile(r"#\d+")
# Words that begin sentences and belong to no name.
_OPENERS = frozenset(
    "A After All Also Although An And Are As At Before Both But By Could Did Do Does During For "
    "From Had Has Have He Her His How If In Invalid Is It Its Many More Most No Nice Of On One Or "
    "Result She Similar Since Some The Their Then There These They "
    "This To Two Was Were What When Where Which While Who Whom Whose Why With".split()
)


@dataclass
class Names:
    """The names of a text that is read piece by piece, with aliases ``#1``, ``#2``, ... in order.

    aliases: name without a leading *The* -> alias; spelled: alias -> the name as it first appeared.
    """

    aliases: dict[str, str] = field(default_factory=dict)
    spelled: dict[str, str] = field(default_factory=dict)

    def read(self, text: str) -> str:
        """The text with its names as aliases; new names get the next ones."""
        for run in _NAME.findall(text):
            name = _parted(run)[1]
            if name and _key(name) not in self.aliases and len(self.aliases) < MOST:
                alias = self.aliases[_key(name)] = f"#{len(self.aliases) + 1}"
                self.spelled[alias] = name
        return self.hide(text)

    def hide(self, text: str) -> str:
        """The text with each name read before as its alias, a word of its own."""
        return _NAME.sub(self._hidden, text)

    def show(self, text: str) -> str:
        """The text with each alias as its name."""
        return _ALIAS.sub(lambda match: self.spelled.get(match[0], match[0]), text)

    def _hidden(self, match: re.Match[str]) -> str:
        opening, name = _parted(match[0])
        alias = self.aliases.get(_key(name))
        return f"{opening} {alias}" if alias else match[0]


def _parted(run: str) -> tuple[str, str]:
    """A run of capitalised words as the opening of a sentence and a name; either may be empty."""
    first, _, rest = run.partition(" ")
    if first not in _OPENERS or (first == "The" and rest):
        return "", run
    opening, name = _parted(rest) if rest else ("", "")
    return f"{first} {opening}".rstrip(), name


def _key(name: str) -> str:
    return name.removeprefix("The ")
