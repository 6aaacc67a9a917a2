"""What kinds of actions there are in HotPotQA."""

from __future__ import annotations

from qvlib.core.types import State
from qvlib.environments.hotpotqa.environment import parse


def kind(state: State, action: str) -> str:
    """Search, lookup, think or answer; what has no such form is other."""
    verb, _ = parse(action)
    return "answer" if verb == "finish" else verb or "other"
