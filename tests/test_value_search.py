"""Anytime curves and steps saved: searches and numbers whose answer is known, adverse words."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pandas as pd
import pytest
from toy import Fixed, Maze, Paths, Scripted, Told

from qvlib.agents.beam import beam_search
from qvlib.agents.best_first import best_first
from qvlib.base.errors import QvlibError
from qvlib.base.paths import resolve
from qvlib.core.episodes import episode, tree_episode
from qvlib.core.lockstep import lockstep
from qvlib.core.mcts import SearchConfig, search
from qvlib.core.reranker import Reranked
from qvlib.pipeline.params import load as load_params
from qvlib.pipeline.params import make
from qvlib.report import figures, tables, value_search
from qvlib.report.anytime import anytime, saved
from qvlib.report.numbers import by_task
from qvlib.report.sentences import steps_saved as said
from qvlib.runs import parquet

MAZE = Maze(levels=10)


def only(job, agent):
    return next(lockstep([job], agent, 1))


# -- the curve of a search --------------------------------------------------------------------


def test_the_rises_of_a_search_by_hand():
    """At the root a and b are tried, and b ends; then from a: aa. Later a is expanded: aa, ab."""
    world = Paths((("aa", 0.2), ("b", 0.4), ("ab", 0.6)))
    tree = only(search(world, world.tasks("test")[0], SearchConfig(6, 2), 0), Fixed(["a", "b"]))
    # An expansion's two steps count together; the rollout to aa is the third and no better.
    # Two draws of a prompt of five tokens are 7; the rollout's step is 6, the next expansion 7.
    assert tree.rises == ((2, 0.4, 7), (5, 0.6, 20))
    assert tree.root.best_reward == 0.6 and tree.cost.env_steps >= 5
    assert tree_episode(tree)["rises"] == [[2, 0.4, 7], [5, 0.6, 20]]


def test_a_rollout_raises_it_at_its_last_step_and_an_end_without_reward_never():
    far, nothing = Paths((("aaa", 0.5),)), Paths((("aaa", 0.0), ("b", 0.0)))
    for world, rises in ((far, ((4, 0.5, 7 + 2 * 6),)), (nothing, ())):
        tree = only(search(world, world.tasks("test")[0], SearchConfig(1, 2), 0), Fixed("ab"))
        assert tree.rises == rises and tree.cost.env_steps == 4  # two, then aa and aaa


@pytest.mark.parametrize("config", [{}, {"expand_at": "first_visit"}, {"stop_at_success": False}])
def test_one_search_tells_what_every_shorter_one_earns(config):
    for task in MAZE.tasks("test"):
        whole = only(search(MAZE, task, SearchConfig(25, 4, **config), 0), Scripted())
        steps, rewards, tokens = zip(*whole.rises, strict=True)
        assert rewards[-1] == whole.root.best_reward
        assert [*rewards] == sorted(set(rewards)) and [*steps] == sorted(steps)
        assert [*tokens] == sorted(tokens) and 0 < tokens[0]
        assert tokens[-1] <= whole.cost.tokens + whole.cost.prompt_tokens
        for iterations in range(1, 25):
            short = only(search(MAZE, task, SearchConfig(iterations, 4, **config), 0), Scripted())
            spent = short.cost.env_steps
            assert short.rises == tuple(rise for rise in whole.rises if rise[0] <= spent)
            assert short.root.best_reward == max(
                [0.0, *(r for s, r, _ in whole.rises if s <= spent)]
            )


def test_a_table_of_episodes_keeps_curves_of_any_length(tmp_path):
    records = [
        {"task": "a", "rises": []},
        {"task": "b", "rises": [[3, 0.5], [9, 1.0]]},
        {"task": "c", "rises": [[12, 1]]},
    ]
    for some in (records, records[:1], [*records[:1], {"task": "old"}]):
        table = parquet.read(parquet.write(tmp_path / "e.parquet", lambda some=some: some))
        told = [None if r is None else [list(x) for x in r] for r in table["rises"]]
        assert told == [record.get("rises") for record in some]


# -- the reckoning ----------------------------------------------------------------------------


def curves(rises, steps=40, copies=4, chains=1):
    """Searches with these rises, over and over; each copy is a group, in each of the chains."""
    count = copies * chains
    groups = [i for i in range(copies) for _ in rises] * chains
    chain = [c for c in range(chains) for _ in range(copies * len(rises))]
    return anytime(list(rises) * count, [steps] * len(rises) * count, groups, chain)


def spends(found, rewards, steps, resamples=100):
    count = len(found.groups)
    return saved(found, np.resize(rewards, count), np.resize(steps, count), resamples)


STAIRS = [(10, 0.5), (30, 1.0)]


@pytest.mark.parametrize(
    "reward, steps, budget, amount",
    [(0.5, 4, 10, 6), (0.2, 4, 10, 6), (0.6, 4, 30, 26), (1.0, 30, 30, 0), (0.5, 50, 10, -40)],
)
@pytest.mark.parametrize("chains", [1, 3])
def test_what_is_needed_is_the_first_number_of_steps_with_the_same_reward(
    reward, steps, budget, amount, chains
):
    told = spends(curves([STAIRS], chains=chains), [reward], [steps])
    assert (told.budget, told.needed, told.steps) == (budget, budget, amount)
    assert told.low == pytest.approx(amount) == told.high  # nothing differs, nothing is unsure


def test_a_search_that_has_seen_a_reward_of_1_spends_no_more():
    """Half are done at 10, half at 20: with a budget of 20 they spend 15."""
    found = curves([[(10, 1.0)], [(20, 1.0)]])
    told = spends(found, [0.75], [5])
    assert (told.budget, told.needed, told.steps) == (20, 15, 10)
    assert found.whole == found.budgets[-1] == 20  # none ran out of iterations
    assert curves([[(10, 1.0)], [(20, 0.9)]]).whole == 40
    assert anytime([[(9, 0.5)], []], [12, 30], [0, 1], [0, 0]).whole == 12


def test_what_is_not_reached_is_saved_at_least():
    found = curves([[(10, 0.5)]])
    told = spends(found, [0.9], [4])
    assert (told.budget, told.needed) == (None, None)
    assert (told.steps, told.low, told.high) == (36, 36, math.inf)
    # With luck it may be no better than the searches: then that is left open too.
    lucky = spends(found, [0.0, 1.0, 0.9, 0.5], [4], 400)
    assert lucky.needed is None and lucky.steps == 36 and lucky.low == 6 and lucky.high == math.inf


def test_searches_of_as_many_steps_are_what_it_is_less():
    found = curves([STAIRS])
    assert spends(found, [0.8], [4]).less == pytest.approx((0.8, 0.8, 0.8))
    assert spends(found, [0.8], [10]).less == pytest.approx((0.3, 0.3, 0.3))
    assert spends(found, [0.8], [99]).less == pytest.approx((-0.2, -0.2, -0.2))


def test_searches_that_find_nothing_or_do_nothing_have_a_curve():
    flat = anytime([[], []], [7, 9], ["a", "b"], [0, 0])
    assert flat.rewards.max() == 0 and flat.whole == 7
    assert saved(flat, np.array([0.0, 0.0]), np.array([3, 3]), 100).needed == 0
    still = anytime([[], []], [0, 0], ["a", "b"], [0, 0])
    told = saved(still, np.array([0.5, 0.5]), np.array([3, 3]), 100)
    assert told.needed is None and told.steps == -3


def test_its_interval_covers_what_it_should_whatever_the_luck_of_trainings():
    """Searches earn a hundredth a step; the other earns 0.5 with 5 steps: 45 are saved.

    A resampled handful of chains would miss it in one case of five.
    """
    rng, hits, wide = np.random.default_rng(0), 0, []
    groups, chains = np.tile(np.arange(30), 3), np.repeat(np.arange(3), 30)
    rises = [[(b, b / 100) for b in range(1, 100)]] * 90
    found = anytime(rises, [100] * 90, groups, chains)
    for _ in range(150):
        luck = rng.normal(0, 0.05, 3)[chains] + rng.normal(0, 0.05, 30)[groups]
        told = saved(found, 0.5 + luck + rng.normal(0, 0.1, 90), np.full(90, 5), 100)
        hits += told.low <= 45 <= told.high
        wide.append(told.high - told.low)
    assert 0.9 * 150 <= hits <= 0.995 * 150 and np.median(wide) > 10


# -- a study of episodes ----------------------------------------------------------------------


def values_of(task, world=()):
    """Path -> the value of acting best from there on."""
    known = {"".join(world): MAZE.best(task, world)}
    for action in MAZE.choices if len(world) < MAZE.depth else ():
        known |= values_of(task, (*world, action))
    return known


ARMS = ("search", "beam", "best_first", "q_n5", "q_n10", "likely_n5", "sample")


def played(seeds=(0, 1, 2), arms=ARMS):
    """Episodes of the maze by each arm with exact values, as tables of a run have them."""
    jobs = {
        "search": lambda *a: search(*a[:2], SearchConfig(20, 5), a[2]),
        "beam": partial(beam_search, width=2, n=5),
        "best_first": partial(best_first, steps=30, n=5, step_cost=0.0),
    }
    rows = []
    for seed in seeds:
        for arm in arms:
            for task in MAZE.tasks("test"):
                exact = Reranked(Scripted(), Told(values_of(task)), 10 if arm == "q_n10" else 5)
                plain = arm in ("search", "sample", "likely_n5")
                job = jobs.get(arm, episode)(MAZE, task, seed)
                told = only(job, Scripted() if plain else exact)
                told = tree_episode(told) if arm == "search" else told
                rows.append({"arm": arm, "seed": seed, **told})
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def episodes():
    return played()


def studied(table):
    return value_search.study(by_task(table), table)


def test_every_arm_is_reckoned_beside_the_searches_of_the_same_tasks(episodes):
    found = studied(episodes)
    table = value_search.reckoned(found, 100).set_index("arm")
    assert list(table.index) == found.arms == [*dict.fromkeys(episodes["arm"])]
    beam = episodes[episodes["arm"] == "beam"]
    assert table.loc["beam", "reward"] == pytest.approx(beam["reward"].mean())
    assert table.loc["beam", "env_steps"] == pytest.approx(beam["env_steps"].mean())
    assert table.loc["beam", "unstepped"] == pytest.approx(beam["env_steps_saved"].mean())
    assert table.loc["beam", "ended"] == 1 and pd.isna(table.loc["search", "saved"])
    # Exact values find the best with few steps, which searches need many for, or never find.
    assert table.loc["beam", "saved_low"] > 0 and table.loc["best_first", "env_steps"] < 6
    means = found.curves.rewards.mean(axis=1)
    needed = np.flatnonzero(means >= table.loc["sample", "reward"] - 1e-9)[0]
    assert table.loc["sample", "budget"] == needed
    over = value_search.minus(found, "q_n5", 100)
    gained = beam["reward"].mean() - episodes[episodes["arm"] == "q_n5"]["reward"].mean()
    assert set(over) == {"beam", "best_first"} and over["beam"]["mean"] == pytest.approx(gained)


def test_rewards_are_paired_with_the_search_of_the_same_chain_and_task(episodes):
    """However the records of the searches come."""
    found = studied(episodes)
    mixed = episodes.sample(frac=1, random_state=0)
    assert (studied(mixed).curves.rewards == found.curves.rewards).all()
    own = episodes[episodes["arm"] == "search"].set_index(["seed", "task"])
    keys = pd.MultiIndex.from_frame(found.of("beam")[["seed", "task"]])
    assert found.curves.rewards[-1] == pytest.approx(own.loc[keys, "reward"].to_numpy())


def test_tables_and_figure_can_be_drawn(episodes):
    found = studied(episodes)
    table, curve = value_search.reckoned(found, 100), value_search.curve(found, 100)
    assert (
        curve["reward"].is_monotonic_increasing
        and curve["budget"].iloc[-1] == len(found.curves.budgets) - 1
    )
    shown = value_search.display_steps(table).set_index("arm")
    assert shown.loc["search", "steps saved"] == "" and "[" in shown.loc["beam", "steps saved"]
    costs = value_search.display_costs(table).set_index("arm")
    assert costs.loc["beam", "episodes that ended"] == "100.0%"
    assert costs.loc["sample", "valued, not stepped"] == ""
    tables.markdown(shown.reset_index()), tables.markdown(costs.reset_index())
    assert len(figures.png(figures.reward_by_steps(curve, table))) > 1000
    task, rows = value_search.one_task(found)
    assert task in set(episodes["task"]) and list(rows["arm"]).count("search") > 1


def test_a_run_without_arms_that_compare_states_says_so():
    found = studied(played(seeds=(0,), arms=("search", "q_n5", "likely_n5", "sample")))
    rows = value_search.reckoned(found, 100).to_dict("records")
    assert value_search.minus(found, "q_n5", 100) == {}
    for told in (said.saves(rows), said.alike(rows), said.trying(rows, {"q_n5": {}})):
        assert told == said.NONE
    assert said.conclusion(rows, {"q_n5": {}}, {}) == said.NONE


@pytest.mark.parametrize("part", [False, True])
def test_searches_that_were_played_before_have_no_curve_and_say_what_plays_them_anew(
    monkeypatch, part
):
    params = make({"runs_dir": "somewhere"})
    known = {"rises": [None, [[3, 0.5]]]} if part else {}
    old = pd.DataFrame({"arm": "search", "seed": 0, "task": ["a", "b"], **known})
    monkeypatch.setattr(value_search, "load_by_task", lambda params: pd.DataFrame())
    monkeypatch.setattr(value_search, "load_episodes", lambda *asked: old)
    with pytest.raises(QvlibError) as caught:
        value_search.load(params)
    message = str(caught.value)
    assert "have no curve" in message and "\n" not in message
    assert "delete the folder" in message and "somewhere/episodes-search-" in message
    assert "run notebooks/05_evaluate.ipynb again" in message


def test_the_run_of_the_study_builds_on_estimators_and_plays_tasks_of_its_own():
    params, estimators = (
        load_params(resolve(f"params/{name}.yml")) for name in ("value-search", "estimators")
    )
    for stage in ("data", "agent", "trees", "pairs"):
        for chain, made in zip(params.each_seed(), estimators.each_seed(), strict=True):
            assert chain.digest(stage) == made.digest(stage)
    assert {*value_search.SHOWN} <= {arm.name for arm in params.arms()}
    assert estimators.evaluation.test_skip == 0
    assert estimators.evaluation.test_tasks <= params.evaluation.test_skip
    assert params.run.studies == ("11_value_search",)


# -- words ------------------------------------------------------------------------------------


def row(arm="beam", low=12.0, high=30.0, amount=18.9, reached=True, **more):
    told = {"arm": arm, "reward": 0.6, "env_steps": 6.2, "longest": 80.0, "whole": 40}
    told |= {"tokens": 50.0}
    told |= {"needed": 25.1 if reached else None, "budget": 26 if reached else None}
    told |= {"saved": amount, "saved_low": low, "saved_high": high}
    return told | {"less": 0.2, "less_low": 0.1, "less_high": 0.3} | more


SEARCH = {"arm": "search", "reward": 0.8, "env_steps": 82.0, "longest": 80.0, "whole": 40}
ONE, TEN = row("q_n5", env_steps=4.0), row("q_n10", env_steps=5.0, tokens=99.0)
PLAIN = row("sample", low=1.0, high=3.0, amount=2.0)


def entry(mean, half=0.04):
    return {"mean": mean, "ci95": [mean - half, mean + half]}


@pytest.mark.parametrize(
    "told, words, never",
    [
        (row(), "**It saves steps**: +18.9 [+12.0, +30.0] a task", "not shown"),
        (row(low=-3.0), "**That it saves steps is not shown**: +18.9 [-3.0", "It saves"),
        (row(low=0.0), "not shown", "It saves"),
        (row(low=-9.0, high=-2.0, amount=-5.0), "**It spends more steps than MCTS**", "It saves"),
        (
            row(reached=False, high=math.inf),
            "MCTS does not reach it within 80.0. **It saves steps**: more than +18.9 [+12.0, no",
            "MCTS needs",
        ),
        (row(reached=False, low=-1.0, high=math.inf), "not shown", "It saves"),
        (row(budget=41), "or fewer with more iterations", "not shown"),
        (row(reward=0.0, needed=0.0, low=-6, high=-6), "nothing to compare", "more steps than"),
    ],
)
def test_steps_are_saved_only_where_the_interval_says_so(told, words, never):
    text = said.saves([SEARCH, told, ONE])
    assert words in text and never not in text and "\n" not in text
    assert f"`beam` earns {told['reward']:.3f} with 6.2 steps a task" in text
    assert ("or fewer with more" in text) == (told["budget"] == 41)


def test_what_one_sample_saves_is_told_beside_it():
    """It goes by no value, so that what it saves is not the doing of values."""
    rows = [SEARCH, row(), ONE, PLAIN]
    words = "One sample, which goes by no value, saves +2.0 [+1.0, +3.0] too"
    over = {"q_n5": {"beam": entry(0.1)}}
    assert words in said.saves(rows) and words in said.conclusion(rows, over, {})
    open_ = [*rows[:3], PLAIN | {"saved_low": -0.1}]
    assert words not in said.saves(open_) + said.conclusion(open_, over, {})
    assert "`sample` less MCTS of 6.2 steps" in said.alike(rows)


@pytest.mark.parametrize(
    "five, ten, words",
    [
        (0.1, 0.1, "**Trying the environment bought `beam` reward**"),
        (0.1, 0.02, "**`beam` earns more than `q_n5`, but not shown more than `q_n10`**"),
        (0.1, -0.1, "**`beam` earns more than `q_n5`, but not shown more than `q_n10`**"),
        (0.02, 0.02, "**That trying the environment bought `beam` anything is not shown**"),
        (0.02, -0.1, "**That trying the environment bought `beam` anything is not shown**"),
        (-0.1, -0.1, "**`beam` earns less, though it tries the environment**"),
    ],
)
def test_what_trying_bought_is_what_the_paired_differences_say(five, ten, words):
    """Ten candidates are as many draws as a beam's, so that five alone are no witness."""
    over = {"q_n5": {"beam": entry(five)}, "q_n10": {"beam": entry(ten)}}
    text = said.trying([SEARCH, row(), ONE, TEN], over)
    assert words in text and text.count("**") == 2
    assert "with 6.2 steps a task in the place of 4.0" in text
    assert "and 50 tokens written in the place of 99" in text


def test_at_equal_steps_the_verdict_is_that_of_the_interval():
    assert "+0.200 [+0.100, +0.300], significantly above 0" in said.alike([SEARCH, row()])
    assert "not significant" in said.alike([SEARCH, row(less_low=-0.1)])
    assert "significantly below 0" in said.alike([row(less=-0.2, less_low=-0.3, less_high=-0.1)])


def test_the_conclusion_says_what_is_shown_and_what_is_not():
    rows = [SEARCH, row(), row("best_first", low=-4.0), ONE, TEN]
    five = {"beam": entry(0.1), "best_first": entry(0.0)}
    ten = {"beam": entry(0.1), "best_first": entry(-0.1)}
    text = said.conclusion(rows, {"q_n5": five, "q_n10": ten}, {"beam": entry(-0.2)})
    assert "**Steps in the environment are saved** against MCTS" in text
    assert "by `beam` (+18.9 [+12.0, +30.0] a task). Of `best_first` it is not shown." in text
    assert "`beam` earns more than `q_n5` and `q_n10`." in text
    assert "`best_first` is not shown to earn more than `q_n5` and earns less than `q_n10`." in text
    assert "save as well: `q_n5` +18.9 [+12.0, +30.0] and `q_n10` +18.9" in text
    open_ = said.conclusion([*rows[:3], ONE | {"saved_low": -1.0}, TEN], {"q_n5": five}, {})
    assert "save as well" not in open_ and "steps saved: `q_n5` +18.9 [-1.0, +30.0]" in open_
    assert "`beam` less the whole search -0.200 [-0.240, -0.160]: the whole search earns" in text


def test_an_adverse_conclusion_claims_nothing():
    rows = [SEARCH, row(low=-4.0), row("best_first", low=-9.0, high=-1.0), ONE]
    over = {"q_n5": {"beam": entry(0.0), "best_first": entry(-0.1)}}
    under = {"beam": entry(0.0), "best_first": entry(0.2)}
    text = said.conclusion(rows, over, under)
    assert text.startswith("**No steps are shown to be saved** against MCTS at equal reward.")
    assert "are saved" not in text and "earns more than `q_n5`" not in text
    assert "`beam` is not shown to earn more than `q_n5`. `best_first` earns less than" in text
    assert "which earns more is not shown" in text and "+0.160, +0.240]: it earns more" in text


def test_how_far_the_curve_goes_is_told():
    text = said.curve([SEARCH, row()], 30)
    assert "30 iterations end with 0.800 after 80.0 steps" in text and "budget of 40 steps" in text
