"""Random streams are named by their use: what is drawn for one is drawn for no other."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pytest
from toy import Maze, Scripted

from qvlib.agents import sampling
from qvlib.agents.best_of_n import BEST_OF_N
from qvlib.agents.search import SEARCH
from qvlib.core.episodes import best_episode, episode
from qvlib.core.lockstep import lockstep
from qvlib.core.mcts import SearchConfig, search
from qvlib.pipeline.agents import seed_of
from qvlib.pipeline.params import make

MAZE = Maze()
TASK = MAZE.tasks("test")[0]


def keys(job) -> set:
    """Of every draw of a job."""
    agent = Scripted()
    list(lockstep([job], agent, 1))
    return {(*request.key, k) for call in agent.calls for request in call for k in range(request.n)}


def test_a_search_and_an_episode_of_a_task_share_no_draw():
    searched = keys(search(MAZE, TASK, SearchConfig(30, 3), 0))
    for play in (episode, partial(episode, trial=1), partial(best_episode, trials=3)):
        assert not searched & keys(play(MAZE, TASK, 0))
    assert not searched & keys(search(MAZE, TASK, SearchConfig(30, 3), 0, stream="again"))
    assert searched == keys(search(MAZE, TASK, SearchConfig(30, 3), 0, stream="search"))


def test_the_arm_that_searches_shares_no_draw_with_the_arms_that_play():
    params = make({"best_of": 3, "search_iterations": 20})
    cast = SimpleNamespace(params=params, environment=MAZE, sampler=lambda **_: Scripted())
    drawn = {
        arm.name: keys(player.play(MAZE, TASK, 0))
        for arm in (SEARCH, sampling.SAMPLE, BEST_OF_N)
        for player in arm.players(cast).values()
    }
    assert drawn["sample"] < drawn["best_of_n"]  # common random numbers: its first trial
    assert not drawn["search"] & drawn["best_of_n"]


@pytest.mark.parametrize("seed", [0, 7])
def test_the_second_agent_of_a_chain_is_not_the_first_of_another(seed):
    chains = [chain.run.seed for chain in make({"seed": seed, "seeds": 50}).each_seed()]
    second = [seed_of(chain, "other_agent") for chain in chains]
    assert [seed_of(chain, "agent") for chain in chains] == chains
    assert len(set(second)) == 50 and not set(second) & set(chains)
    assert all(2**31 <= each < 2**32 for each in second)  # seeds of torch and numpy, out of reach
