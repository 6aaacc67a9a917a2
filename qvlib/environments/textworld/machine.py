"""Plays games: text and score from the Z-machine (jericho), commands from TextWorld's logic.

TextWorld's ``env.copy()`` loads the game again, which takes as long as ten to thirty steps. What a
game is in at a moment is little more than its memory (40 kB) and its facts, and copying those takes
a tenth of a step: they are kept for the moments last visited, so that any of them can be gone on
from. A moment that was forgotten is played again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cachetools import LRUCache

GAMES, MOMENTS = 64, 1024  # kept in memory; a moment holds about 50 kB
_EVENT = re.compile(r"\[[^]]+\]\n?")
_EXTRA = re.compile(r"<score>\s*(\d+)\s*</score><moves>\s*\d+\s*</moves>")
_SCORED = re.compile(r"You scored (-?\d+) out of")
_AFTER = re.compile(r"\n>[^\n]*\Z|\n*Would you like to RESTART.*\Z", re.DOTALL)
_ROOM = re.compile(r"^-= .* =-$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Moment:
    """What some commands show; the game goes on from ``memory``, ``facts`` and ``actions``."""

    text: str
    admissible: tuple[str, ...]
    score: int
    max_score: int
    won: bool
    over: bool
    memory: Any
    facts: Any
    actions: Any


class Machines:
    """The games of a folder in play; holds at most ``GAMES`` games and ``MOMENTS`` moments."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._games: LRUCache[str, Machine] = LRUCache(GAMES)
        self._moments: LRUCache[tuple[str, tuple[str, ...]], Moment] = LRUCache(MOMENTS)

    def after(self, path: str, commands: tuple[str, ...]) -> Moment:
        """The moment after the commands, one step from the latest one before it that is kept."""
        known = len(commands)
        while known >= 0 and (path, commands[:known]) not in self._moments:
            known -= 1
        if known < 0:
            known, now = 0, self._game(path).start()
            self._moments[path, ()] = now
        else:
            now = self._moments[path, commands[:known]]
        for count in range(known, len(commands)):
            now = self._game(path).go_on(now, commands[count])
            self._moments[path, commands[: count + 1]] = now
        return now

    def forget(self) -> None:
        """Keep nothing in memory."""
        self._games.clear()
        self._moments.clear()

    def _game(self, path: str) -> Machine:
        if path not in self._games:
            self._games[path] = Machine(self.folder / path)
        return self._games[path]


class Machine:
    """One game: start it, or go on from any of its moments."""

    def __init__(self, path: Path) -> None:
        import textworld
        from jericho import FrotzEnv
        from textworld.generator.inform7 import Inform7Game

        self.game = textworld.Game.load(str(path.with_suffix(".json")))
        self.commands = Inform7Game(self.game)
        self.machine = FrotzEnv(str(path), 0)

    def start(self) -> Moment:
        """The first moment."""
        text = self.machine.reset()[0]
        self.machine.step("tw-trace-actions")  # from here on the text names what happened
        self.machine.step("tw-extra-infos score")
        room = _ROOM.search(text)
        facts = self.game.world.state.copy()
        return self._moment(
            text[room.start() :] if room else text, 0, facts, self._applicable(facts)
        )

    def go_on(self, before: Moment, command: str) -> Moment:
        """The moment after a command; ``before`` stays as it is."""
        self.machine.set_state(before.memory)
        text, facts, actions = self.machine.step(command)[0], before.facts.copy(), before.actions
        for event in happened(text):
            action = self.commands.detect_action(event, actions)
            if action is not None:
                facts.apply(action)
                actions = self._applicable(facts)
        score = _EXTRA.search(text) or _SCORED.search(text)
        return self._moment(text, int(score[1]) if score else before.score, facts, actions)

    def _applicable(self, facts: Any) -> list[Any]:
        return list(
            facts.all_applicable_actions(
                self.game.kb.rules.values(), self.game.kb.types.constants_mapping
            )
        )

    def _moment(self, text: str, score: int, facts: Any, actions: Any) -> Moment:
        won, lost = "*** The End ***" in text, "*** You lost! ***" in text
        listed = (
            () if won or lost else sorted(set(self.commands.gen_commands_from_actions(actions)))
        )
        return Moment(
            readable(text),
            tuple(listed),
            score,
            self.game.max_score,
            won,
            won or lost,
            self.machine.get_state(),
            facts,
            actions,
        )


def happened(text: str) -> list[str]:
    """The events that a traced text reports as done; in brackets are parts of other events."""
    marks = (mark.strip()[1:-1] for mark in _EVENT.findall(text))
    return [
        mark.removesuffix(" - succeeded")
        for mark in marks
        if mark.endswith(" - succeeded") and not set("()") & set(mark)
    ]


def readable(text: str) -> str:
    """A text as a player reads it: without traces, status line and empty lines."""
    text = _AFTER.sub("", _EVENT.sub("", _EXTRA.sub("", text)))
    return "\n".join(line.strip() for line in text.splitlines() if line.strip())
