"""Arms that choose by votes, by prior times value, and that search with values: exact cases."""

from __future__ import annotations

import math
from functools import partial
from types import SimpleNamespace

import pytest
from toy import Fixed, Maze, Paths, Scripted, Table, Told

from qvlib.agents.arms import arms_of
from qvlib.agents.beam import BEAM, beam_search
from qvlib.agents.best_first import BEST_FIRST, best_first
from qvlib.agents.saycan import SAYCAN_N5, LogValue
from qvlib.agents.self_consistency import SELF_CONSISTENCY_N5, Majority
from qvlib.base.errors import QvlibError
from qvlib.base.settings import Settings
from qvlib.core.episodes import episode
from qvlib.core.lockstep import lockstep
from qvlib.core.reranker import Reranked
from qvlib.core.types import Request, Task
from qvlib.estimators import Estimator, estimator_of
from qvlib.pipeline.params import make

MAZE = Maze()
TASK = MAZE.tasks("test")[0]
VALUES = Estimator("told", Settings, lambda *_: None, lambda *_: None, values=True)
SWITCHES = {
    "self_consistency_n5": {"self_consistency": True},
    "saycan_n5": {"saycan": True},
    "beam": {"beam_width": 2},
    "best_first": {"best_first_steps": 30},
    "lats": {"lats_iterations": 3},
    "reflexion": {"reflexion_trials": 3},
    "reflexion_q": {"reflexion_trials": 3},
}
WITH_VALUES = {"estimator": f"{__name__}:VALUES"}


def ask(agent, state=None, n=1, key=(0, "t", "0")):
    return agent.propose([Request(state or MAZE.reset(Task("t", "go")), n, key)])[0]


def only(job, agent):
    return next(lockstep([job], agent, 1))


# -- which arms are played --------------------------------------------------------------------


@pytest.mark.parametrize("arm", SWITCHES)
def test_an_arm_is_played_where_its_setting_says_so(arm):
    names = [each.name for each in make({}).arms()]
    switched = [each.name for each in make({**WITH_VALUES, **SWITCHES[arm]}).arms()]
    assert arm not in names and arm in switched
    others = set(switched) - set(names)
    assert others == {a for a, switch in SWITCHES.items() if switch == SWITCHES[arm]}
    off = {name: type(value)(0) for name, value in SWITCHES[arm].items()}
    assert arm not in [each.name for each in make(off).arms()]


@pytest.mark.parametrize("arm", ["saycan_n5", "beam", "best_first"])
def test_what_compares_states_refuses_scores_that_are_no_values(arm):
    (key,) = SWITCHES[arm]
    assert not estimator_of("step_dpo").values
    with pytest.raises(QvlibError) as caught:
        make(SWITCHES[arm])
    message = str(caught.value)
    assert f"parameter '{key}': the arm compares states by their values" in message
    assert "step_dpo" in message and "set estimator to" in message and "\n" not in message
    assert arm in [each.name for each in make({**WITH_VALUES, **SWITCHES[arm]}).arms()]


def test_an_estimator_that_gives_values_may_be_set_to_give_none():
    beam = {"estimator": "agentrm", "beam_width": 2}
    assert "beam" in [each.name for each in make(beam).arms()]
    assert "beam" in [each.name for each in make({**beam, "estimator": "qlass"}).arms()]
    with pytest.raises(QvlibError, match=r"agentrm with these settings order .* to qlass"):
        make({**beam, "target": "advantage"})


def test_a_server_tells_no_prior_to_multiply():
    with pytest.raises(QvlibError, match="parameter 'saycan': an agent behind a server tells no"):
        make({**WITH_VALUES, "saycan": True, "agent": "api:x", "q_base": "smollm2"})


def test_their_order_is_that_of_the_tables():
    names = [arm.name for arm in arms_of()]
    assert names.index("likely_n10") + 1 == names.index("self_consistency_n5")
    assert names.index("q_n10") + 1 == names.index("saycan_n5")
    first = names.index("best_of_n") + 1
    assert names[first : first + 5] == ["beam", "best_first", "lats", "reflexion", "reflexion_q"]


# -- self-consistency -------------------------------------------------------------------------


def test_the_action_drawn_most_often_is_executed():
    drawn = ["a", "b", "c", "b", "c"]
    (best,) = ask(Majority(Fixed(drawn), 5))
    assert best.action == "b"  # as often as c, and drawn before it
    assert [p.action for p in best.considered] == drawn
    assert (best.cost.tokens, best.cost.prompt_tokens) == (5, 5)
    assert [p.action for p in ask(Majority(Fixed(drawn), 5), n=3)] == ["b", "c", "b"]
    assert [p.cost.tokens for p in ask(Majority(Fixed(drawn), 5), n=2)] == [5, 0]
    assert ask(Majority(Fixed(["a"]), 5))[0].action == "a"
    assert len(ask(Majority(Scripted(), 2), n=4)) == 4


def test_with_one_sample_it_is_the_sample():
    plain, voted = (only(episode(MAZE, TASK, 0), a) for a in (Scripted(), Majority(Scripted(), 1)))
    assert plain == voted


def test_the_arm_votes_among_five():
    cast = SimpleNamespace(sampler=lambda: Fixed(["c", "a", "b", "a", "c"]))
    player = SELF_CONSISTENCY_N5.players(cast)["self_consistency_n5"]
    record = only(player.play(MAZE, TASK, 0), player.agent)
    assert record["actions"] == ["c"] * 3
    assert (record["proposals"], record["tokens"]) == (15, 15)


# -- prior times value ------------------------------------------------------------------------


def saycan(agent, values, floor=0.01):
    return Reranked(agent, LogValue(Table(values), floor), 3, prior_weight=1.0)


def test_the_highest_product_of_prior_and_value_is_executed():
    agent = Fixed(["a", "b", "c"], [math.log(p) for p in (0.6, 0.3, 0.1)])
    assert ask(saycan(agent, {"a": 0.4, "b": 0.9, "c": 1.0}))[0].action == "b"  # 0.24 0.27 0.1
    assert ask(saycan(agent, {"a": 0.5, "b": 0.9, "c": 1.0}))[0].action == "a"  # 0.3 0.27 0.1
    (best,) = ask(saycan(agent, {"a": 0.5, "b": 0.9, "c": 1.0}))
    products = [math.exp(p.q + p.log_prob) for p in best.considered]
    assert products == pytest.approx([0.3, 0.27, 0.1])


def test_values_out_of_range_count_as_its_ends():
    agent = Fixed(["a", "b", "c"], [math.log(p) for p in (0.6, 0.3, 0.1)])
    assert ask(saycan(agent, {"a": 1.2, "b": 5.0, "c": 9.0}))[0].action == "a"
    assert ask(saycan(agent, {"a": -0.5, "b": 0.0, "c": 0.05}))[0].action == "a"  # .006 .003 .005
    assert ask(saycan(agent, {"a": -0.5, "b": 0.0, "c": 0.05}, 1e-3))[0].action == "c"
    with pytest.raises(QvlibError, match="scores 'b' as nan"):
        ask(saycan(agent, {"a": 0.5, "b": math.nan, "c": 1.0}))


def test_the_arm_multiplies_for_five_samples():
    cast = SimpleNamespace(
        sampler=lambda: Fixed(["a", "a", "b", "c", "a"], [-0.1, -0.1, -3.0, -2.0, -0.1]),
        q_model=lambda: Table({"a": 0.2, "b": 0.9, "c": 0.9}),
        params=make({**WITH_VALUES, "saycan": True}),
    )
    player = SAYCAN_N5.players(cast)["saycan_n5"]
    record = only(player.play(MAZE, TASK, 0), player.agent)
    assert record["actions"] == ["a"] * 3 and record["proposals"] == 15


# -- beam search ------------------------------------------------------------------------------

# The first step of the better path looks worse, and the best reward lies where no value is.
WORLD = Paths((("aaa", 0.2), ("aab", 0.2), ("bba", 0.9), ("bab", 1.0)), max_steps=3)
GO = WORLD.tasks("test")[0]
VALUE = Told(
    {"a": 0.6, "b": 0.5, "aa": 0.3, "ab": 0.1, "bb": 0.8, "ba": 0.2, "aaa": 0.25, "bba": 0.85}
)


def beam(width, q=VALUE, world=WORLD, drawn=("a", "b")):
    agent = Reranked(Fixed(drawn), q, len(drawn))
    return only(beam_search(world, world.tasks("test")[0], 0, width, len(drawn)), agent)


def test_a_wider_beam_finds_what_looks_worse_at_first():
    narrow, wide = beam(1), beam(2)
    assert (narrow["actions"], narrow["reward"]) == (["a", "a", "a"], 0.2)
    assert (wide["actions"], wide["reward"]) == (["b", "b", "a"], 0.9)
    # Both are of one depth; of width 2 one state is asked, then two and two.
    assert (narrow["env_steps"], narrow["proposals"], narrow["env_steps_saved"]) == (3, 6, 3)
    assert (wide["env_steps"], wide["proposals"], wide["env_steps_saved"]) == (6, 10, 4)
    assert wide["tokens"] == 10 and wide["prompt_tokens"] == 25


def test_it_is_told_no_reward():
    """As wide as all there is, it still plays what it values most, not the reward of 1."""
    assert beam(8)["reward"] == 0.9 and beam(8)["env_steps_saved"] == 0


@pytest.mark.parametrize("seed", range(4))
def test_a_beam_of_one_is_reranking(seed):
    values = Told({}, 0.5)
    for q in (values, Told({"a": 0.9, "b": 0.1, "ab": 0.8, "abc": 0.7, "ca": 0.3})):
        agent = Reranked(Scripted(), q, 5)
        for task in MAZE.tasks("test"):
            found = only(beam_search(MAZE, task, seed, 1, 5), agent)
            saved = found.pop("env_steps_saved")
            assert found == only(episode(MAZE, task, seed), agent) and saved >= 0


def test_an_end_keeps_its_place_and_one_that_was_cut_off_is_the_last_choice():
    world = Paths((("a", 0.3), ("bb", 0.7)), max_steps=3)
    q = Told({"a": 0.9, "b": 0.8, "bb": 0.1, "ba": 0.95, "baa": 0.99, "bab": 0.98})
    found = beam(2, q, world)
    # One end, and one that promised more when the steps ran out.
    assert (found["actions"], found["reward"], found["done"]) == (["a"], 0.3, True)
    assert found["env_steps"] == 4  # a and b, then one place is left: ba, baa
    cut = beam(1, Told({"b": 1.0, "ba": 1.0, "baa": 1.0}), world)
    assert (cut["actions"], cut["reward"], cut["done"]) == (["b", "a", "a"], 0.0, False)


def test_with_exact_values_any_width_earns_the_best_there_is():
    for task in MAZE.tasks("test"):
        exact = Told(values_of(MAZE, task))
        for width in (1, 2, 5):
            agent = Reranked(Fixed("abc"), exact, 3)
            found = only(beam_search(MAZE, task, 0, width, 3), agent)
            assert found["reward"] == MAZE.best(task)


def values_of(maze, task, world=()):
    """Path -> the value of acting best from there on, by dynamic programming."""
    known = {"".join(world): maze.best(task, world)}
    for action in maze.choices if len(world) < maze.depth else ():
        known |= values_of(maze, task, (*world, action))
    return known


# -- best-first search ------------------------------------------------------------------------


def first(steps=30, q=VALUE, world=WORLD, step_cost=0.0, drawn=("a", "b")):
    agent = Reranked(Fixed(drawn), q, len(drawn))
    job = best_first(world, world.tasks("test")[0], 0, steps, len(drawn), step_cost)
    return only(job, agent)


def test_it_steps_what_promises_most_and_nothing_else():
    """Queue: a .6 b .5 -> aa .3 ab .1 -> b -> bb .8 -> bba .85, which ends."""
    found = first()
    assert (found["actions"], found["reward"], found["done"]) == (["b", "b", "a"], 0.9, True)
    assert found["env_steps"] == 4  # a, b, bb, bba
    assert found["proposals"] == 8  # at the start, in a, b and bb
    assert found["env_steps_saved"] == 4
    assert (found["tokens"], found["prompt_tokens"]) == (8, 20)


def test_where_steps_cost_something_what_is_shallow_goes_first():
    world = Paths((("a", 0.4), ("bba", 1.0)))
    q = Told({"a": 0.5, "b": 0.6, "bb": 0.6, "bba": 0.6})
    assert first(q=q, world=world)["actions"] == ["b", "b", "a"]
    # 0.5 - 0.15 against 0.6 - 0.15, then against 0.6 - 0.3.
    assert first(q=q, world=world, step_cost=0.15)["actions"] == ["a"]
    assert first(q=q, world=world, step_cost=0.15)["env_steps"] == 2
    assert first(q=q, world=world, step_cost=0.04)["actions"] == ["b", "b", "a"]


@pytest.mark.parametrize("steps, actions", [(1, ["a"]), (2, ["b"]), (3, ["b", "b"])])
def test_where_its_steps_are_spent_the_episode_is_cut_off(steps, actions):
    found = first(steps)
    assert (found["actions"], found["done"], found["reward"]) == (actions, False, 0.0)
    assert found["env_steps"] == steps


def test_what_has_run_out_of_steps_is_left_for_what_has_not():
    world = Paths((("bb", 0.7),), max_steps=2)
    q = Told({"a": 0.9, "aa": 0.8, "ab": 0.8, "b": 0.5, "bb": 0.4})
    found = first(q=q, world=world)
    assert (found["actions"], found["env_steps"]) == (["b", "b"], 5)
    nowhere = first(q=q, world=Paths((), max_steps=2))
    assert not nowhere["done"] and nowhere["env_steps"] == 6  # all there is


def test_with_exact_values_it_walks_straight_to_the_best():
    for task in MAZE.tasks("test"):
        agent = Reranked(Fixed("abc"), Told(values_of(MAZE, task)), 3)
        found = only(best_first(MAZE, task, 0, 30, 3, 0.0), agent)
        assert found["reward"] == MAZE.best(task)
        assert (found["env_steps"], found["env_steps_saved"]) == (3, 6)


def test_its_first_draws_are_those_of_an_episode():
    agent = Reranked(Scripted(), Told({}, 0.5), 5)
    for task in MAZE.tasks("test"):
        found = only(best_first(MAZE, task, 0, 30, 5, 0.0), agent)
        plain = only(episode(MAZE, task, 0, trace=True), agent)
        assert found["actions"][0] == plain["actions"][0]


# -- as arms ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arm, job",
    [
        (BEAM, partial(beam_search, width=2, n=5)),
        (BEST_FIRST, partial(best_first, steps=30, n=5, step_cost=0.0)),
    ],
)
def test_the_arm_searches_as_its_settings_say_in_any_company(arm, job):
    q = Told({"a": 0.6, "b": 0.5, "ba": 0.7, "aa": 0.55, "c": 0.3})
    params = make({**WITH_VALUES, **SWITCHES["beam"], **SWITCHES["best_first"]})
    cast = SimpleNamespace(sampler=Scripted, q_model=lambda: q, params=params)
    player = arm.players(cast)[arm.name]
    tasks = MAZE.tasks("test")
    together = {
        record["task"]: record
        for record in lockstep((player.play(MAZE, t, 0) for t in tasks), player.agent, 5)
    }
    for task in tasks:
        alone = only(job(MAZE, task, 0), Reranked(Scripted(), q, 5))
        assert together[task.id] == alone
        assert alone.keys() == {*only(episode(MAZE, task, 0), Scripted()), "env_steps_saved"}
