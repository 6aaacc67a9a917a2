"""Many jobs advance together, and no job notices."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import REFUSED, Maze, Scripted

from qvlib.base.errors import QvlibError
from qvlib.core.episodes import episode
from qvlib.core.filtering import Filtered
from qvlib.core.lockstep import Wraps, lockstep
from qvlib.core.types import Request, State, Task


def counter(name: str, length: int):
    """Asks ``length`` times; returns its name and all answers."""
    state, answers = State(Task(name, ""), ""), []
    for i in range(length):
        answers += yield Request(state, 1 + i % 2, (0, name, str(i)))
    return name, tuple(p.action for p in answers)


@pytest.mark.parametrize("width", [0, -3])
def test_a_width_that_lets_no_job_run_is_refused(width):
    with pytest.raises(QvlibError, match=f"width {width} lets no job run"):
        list(lockstep([counter("a", 2)], Scripted(), width))


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
    shared_records, apart_records = [
        sorted(
            lockstep((episode(maze, t, 0) for t in maze.tasks("test")), agent, 8),
            key=lambda r: r["task"],
        )
        for agent in (Filtered(shared, maze), Hidden(Filtered(apart, maze)))
    ]
    assert shared_records == apart_records and sum(r["refused"] for r in shared_records) > 10
    assert sum(map(len, shared.calls)) == sum(map(len, apart.calls)) and len(shared.calls) < len(
        apart.calls
    )


def test_what_asks_two_agents_is_asked_itself():
    """With a fallback no one agent answers all requests, so redraws stay inside the filter."""
    maze = Maze(max_steps=5)
    greedy, sampled = Scripted(("a", REFUSED)), Scripted(("b", "loop"))
    agent = Filtered(greedy, maze, fallback=sampled)
    assert isinstance(agent, Wraps) and agent.inner is None
    assert Filtered(greedy, maze).inner is greedy and not isinstance(greedy, Wraps)
    records = list(lockstep((episode(maze, t, 0) for t in maze.tasks("test")), agent, 8))
    assert all("~" not in r.key[2] for call in greedy.calls for r in call)
    assert (
        sum(r["refused"] for r in records) == sum(r.n for call in sampled.calls for r in call) > 0
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
