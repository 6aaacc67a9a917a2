"""Many jobs advance together, and no job notices."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import REFUSED, Maze, Scripted

from qvlib.core.episodes import episode
from qvlib.core.filtering import Filtered
from qvlib.core.lockstep import lockstep
from qvlib.core.types import Request, State, Task


def counter(name: str, length: int):
    """Asks ``length`` times; returns its name and all answers."""
    state, answers = State(Task(name, ""), ""), []
    for i in range(length):
        answers += yield Request(state, 1 + i % 2, (0, name, str(i)))
    return name, tuple(p.action for p in answers)


@settings(max_examples=40, deadline=None)
@given(lengths=st.lists(st.integers(0, 6), max_size=12), width=st.integers(1, 15))
def test_results_do_not_depend_on_company(lengths, width):
    agent = Scripted()
    results = list(lockstep((counter(str(i), n) for i, n in enumerate(lengths)), agent, width))
    assert sorted(name for name, _ in results) == sorted(map(str, range(len(lengths))))
    for name, answers in results:
        alone = next(lockstep([counter(name, lengths[int(name)])], Scripted(), 1))
        assert (name, answers) == alone
    assert all(0 < len(call) <= width for call in agent.calls)


def test_calls_are_full_while_work_is_left():
    agent = Scripted()
    list(lockstep((counter(str(i), 3) for i in range(10)), agent, 4))
    assert [len(c) for c in agent.calls] == [4, 4, 4, 4, 4, 4, 2, 2, 2]


def test_results_come_as_jobs_finish_and_jobs_start_when_there_is_room():
    started = []

    def jobs():
        for i, length in enumerate((5, 1, 1, 0)):
            started.append(i)
            yield counter(str(i), length)

    results = lockstep(jobs(), Scripted(), 2)
    assert next(results)[0] == "1" and started == [0, 1]
    assert [name for name, _ in results] == ["2", "3", "0"]


def test_redraws_share_calls_with_other_jobs_and_change_nothing():
    @dataclass
    class Hidden:
        """A filtered agent that ``lockstep`` takes for any other."""

        agent: Filtered

        def propose(self, requests):
            return self.agent.propose(requests)

    maze, actions = Maze(max_steps=5), ("a", "b", REFUSED, REFUSED)
    shared, apart = Scripted(actions), Scripted(actions)
    found = [
        sorted(
            lockstep((episode(maze, t, 0) for t in maze.tasks("test")), agent, 8),
            key=lambda r: r["task"],
        )
        for agent in (Filtered(shared, maze), Hidden(Filtered(apart, maze)))
    ]
    assert found[0] == found[1] and sum(r["refused"] for r in found[0]) > 10
    assert sum(map(len, shared.calls)) == sum(map(len, apart.calls)) and len(shared.calls) < len(
        apart.calls
    )


def test_no_jobs_no_calls():
    agent = Scripted()
    assert list(lockstep([], agent, 3)) == [] and agent.calls == []


def test_a_failing_job_is_not_hidden():
    def failing():
        yield Request(State(Task("x", ""), ""), 1, (0, "x", ""))
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        list(lockstep([failing()], Scripted(), 1))


def test_an_agent_that_answers_too_few_is_an_error():
    class Short(Scripted):
        def propose(self, requests):
            return super().propose(requests)[:-1]

    with pytest.raises(ValueError):
        list(lockstep([counter("a", 1), counter("b", 1)], Short(), 2))


@pytest.mark.parametrize("width", [1, 3, 64])
def test_episodes_are_the_same_at_any_width(width):
    maze = Maze(max_steps=5)
    by_task = {
        r["task"]: r
        for r in lockstep(
            (episode(maze, t, 0) for t in maze.tasks("test")), Scripted(("a", "b", "loop")), width
        )
    }
    alone = {
        t.id: next(lockstep([episode(maze, t, 0)], Scripted(("a", "b", "loop")), 1))
        for t in maze.tasks("test")
    }
    assert by_task == alone
