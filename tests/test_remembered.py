"""Draws that arms share are made once, and no arm sees a difference."""

from __future__ import annotations

from dataclasses import replace

from qvlib.agents import remembered
from qvlib.agents.remembered import Remembered
from qvlib.core.types import Cost, Proposal, Request, State, Step, Task


class Counting:
    """Draws the request's own name, and counts what it is asked."""

    def __init__(self):
        self.asked = 0

    def propose(self, requests):
        self.asked += len(requests)
        return [
            [
                Proposal(f"{r.key} {k} after {len(r.state.history)}", cost=Cost(tokens=3))
                for k in range(r.n)
            ]
            for r in requests
        ]


TASK = Task("t", "do it", "g")
START = State(TASK, "page")
LATER = replace(START, history=(Step("page", "go"),))


def requests():
    key = (0, "t", "0")
    return [
        Request(START, 2, key),
        Request(START, 3, key),
        Request(LATER, 2, key),
        Request(START, 2, (1, "t", "0")),
    ]


def test_a_request_is_drawn_once_and_answered_alike():
    plain, own = Counting(), Counting()
    agent, known = Remembered(own, {}), {}
    expected = plain.propose(requests())
    assert agent.propose(requests()) == expected and own.asked == 4  # each differs in one thing
    assert agent.propose(requests()[::-1]) == expected[::-1] and own.asked == 4
    shared = [Remembered(own, known), Remembered(own, known)]
    assert [a.propose(requests()) for a in shared] == [expected] * 2 and own.asked == 8


def test_twice_in_a_batch_is_drawn_once():
    own = Counting()
    first = requests()[0]
    one, two = Remembered(own).propose([first, first])
    assert one == two and own.asked == 1
    one.clear()  # what a caller does to its answer is its own affair
    assert Remembered(own, {}).propose([first])[0] == two


def test_the_oldest_are_forgotten(monkeypatch):
    monkeypatch.setattr(remembered, "MOST", 2)
    own = Counting()
    agent = Remembered(own)
    expected = Counting().propose(requests())
    assert agent.propose(requests()) == expected and len(agent.known) == 2
    agent.propose(requests()[2:])
    assert own.asked == 4
    agent.propose(requests()[:1])
    assert own.asked == 5
