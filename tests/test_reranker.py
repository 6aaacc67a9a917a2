"""Agents made of agents."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from toy import REFUSED, Fixed, Maze, Scripted, Table

from qvlib.agents.listed import Choosing, Listed
from qvlib.base.errors import QvlibError
from qvlib.core.episodes import episode, tree_episode
from qvlib.core.filtering import Filtered
from qvlib.core.lockstep import lockstep
from qvlib.core.mcts import SearchConfig, search
from qvlib.core.reranker import Reranked
from qvlib.core.trees import tree_record
from qvlib.core.types import Cost, Proposal, Request, Task
from qvlib.pipeline.params import EvaluationSettings

MAZE = Maze()
STATE = MAZE.reset(Task("t", "go"))


def ask(agent, n=1, key=(0, "t", "0")):
    return agent.propose([Request(STATE, n, key)])[0]


def first_actions(agent, draws=1500):
    rows = agent.propose([Request(STATE, 1, (i, "t", "0")) for i in range(draws)])
    return Counter(row[0].action for row in rows)


# -- choosing ---------------------------------------------------------------------------------


def test_argmax_of_q_and_ties_to_the_first_drawn():
    q = Table({"a": 0.1, "b": 0.7, "c": 0.7})
    best = ask(Reranked(Fixed(["a", "c", "b"]), q, 3))
    assert [p.action for p in best] == ["c"] and best[0].q == 0.7
    assert [c.action for c in best[0].considered] == ["a", "c", "b"]
    assert [c.q for c in best[0].considered] == [0.1, 0.7, 0.7]
    assert [p.action for p in ask(Reranked(Fixed(["a", "c", "b"]), q, 3), n=3)] == ["c", "b", "a"]


def test_ties_keep_their_order_however_many():
    names = [f"x{i}" for i in range(50)]
    best = ask(
        Reranked(Fixed(names), Table({n: float(i % 2) for i, n in enumerate(names)}), 50), n=50
    )
    assert [p.action for p in best] == names[1::2] + names[::2]


def test_distinct_actions_are_scored_once():
    q = Table({"a": 0.0, "b": 1.0})
    ask(Reranked(Fixed(["a", "b", "a", "a", "b"]), q, 5))
    assert q.asked == [["a", "b"]]


def test_the_price_is_that_of_all_candidates_and_paid_once():
    best = ask(Reranked(Fixed(["a", "b", "c"]), Table({"a": 0, "b": 1, "c": 2}), 3), n=2)
    assert [(p.cost.tokens, p.cost.prompt_tokens, p.cost.refused) for p in best] == [
        (3, 5, 0),
        (0, 0, 0),
    ]


def test_more_are_drawn_when_more_are_asked_for():
    assert len(ask(Reranked(Scripted(), Table({"a": 0, "b": 1, "c": 2}), 2), n=4)) == 4


def test_prior_weight_adds_the_agents_own_opinion():
    agent, q = Fixed(["a", "b"], [-0.1, -3.0]), Table({"a": 0.0, "b": 1.0})
    assert ask(Reranked(agent, q, 2))[0].action == "b"
    assert ask(Reranked(agent, q, 2, prior_weight=0.3))[0].action == "b"  # -0.03 against 0.1
    assert ask(Reranked(agent, q, 2, prior_weight=0.4))[0].action == "a"  # -0.04 against -0.2
    unknown = Fixed(["a", "b"], [None])
    assert ask(Reranked(unknown, q, 2))[0].action == "b"


@pytest.mark.parametrize("told", [[None], [-0.1, None]])
@pytest.mark.parametrize("q", [None, Table({"a": 0.0, "b": 1.0})])
def test_a_prior_that_is_not_told_is_no_certainty(told, q):
    with pytest.raises(QvlibError, match=r"prior_weight = 0.5, but .* of '[ab]'; set"):
        ask(Reranked(Fixed(["a", "b"], told), q, 2, prior_weight=0.5))


def test_a_score_that_is_no_number_is_no_score():
    q = Table({"a": 0.0, "b": math.nan})
    with pytest.raises(QvlibError, match="scores 'b' as nan"):
        ask(Reranked(Fixed(["a", "b"]), q, 2))
    assert ask(Reranked(Fixed(["a", "b"]), Table({"a": 0.0, "b": -math.inf}), 2))[0].action == "a"


def test_zero_q_twins():
    agent = Fixed(["a", "b", "c"], [-2.0, -1.0, -3.0])
    assert ask(Reranked(agent, None, 3, prior_weight=1.0))[0].action == "b"
    assert ask(Reranked(agent, None, 3))[0].action == "a"  # no reason to choose: the first drawn
    for temperature in (1.0, math.inf):
        counts = first_actions(Reranked(agent, None, 3, temperature=temperature))
        assert stats.chisquare([counts[a] for a in "abc"]).pvalue > 0.001


def test_temperature_draws_from_the_softmax():
    q, t = {"a": 0.0, "b": 0.5, "c": -0.5}, 0.7
    counts = first_actions(Reranked(Fixed(["a", "b", "c"]), Table(q), 3, temperature=t))
    p = np.exp(np.array([q[a] for a in "abc"]) / t)
    assert stats.chisquare([counts[a] for a in "abc"], 1500 * p / p.sum()).pvalue > 0.001
    again = Reranked(Fixed(["a", "b", "c"]), Table(q), 3, temperature=t)
    assert ask(again, key=(3, "t", "0")) == ask(again, key=(3, "t", "0"))


def test_an_action_that_was_drawn_twice_counts_twice():
    """The choice among samples follows pi_agent(a) exp(Q(a) / T), as the docstring says."""
    q, t = {"a": 0.0, "b": 0.5, "c": -0.5}, 0.7
    drawn = ["a", "b", "a", "c", "a"]
    counts = first_actions(Reranked(Fixed(drawn), Table(q), 5, temperature=t))
    p = np.array([drawn.count(a) * np.exp(q[a] / t) for a in "abc"])
    assert stats.chisquare([counts[a] for a in "abc"], 1500 * p / p.sum()).pvalue > 0.001
    assert "drawn twice counts twice" in " ".join(Reranked.__doc__.split())
    assert "repeats counted" in EvaluationSettings.model_fields["rerank_temperature"].description


def test_without_replacement_at_a_temperature():
    best = ask(
        Reranked(Fixed(["a", "b", "c"]), Table({"a": 0, "b": 0, "c": 0}), 3, temperature=1.0), n=3
    )
    assert sorted(p.action for p in best) == ["a", "b", "c"]


# -- a reranked agent is an agent -------------------------------------------------------------


def test_nests_is_searched_with_and_batches():
    inner = Reranked(Scripted(), Table({"a": 0, "b": 1, "c": 2}), 4)
    outer = Reranked(inner, Table({"a": 5, "b": 1, "c": 0}), 2)
    requests = [Request(STATE, 1, (0, f"t{i}", "0")) for i in range(9)]
    together = outer.propose(requests)
    assert together == [outer.propose([r])[0] for r in requests]
    for request, (best,) in zip(requests, together, strict=True):
        drawn = {p.action for p in Scripted().propose([replace(request, n=4)])[0]}
        assert best.action in drawn and len(best.considered) == 2
        assert best.cost.tokens == 8  # four draws of two tokens
    tree = next(lockstep([search(MAZE, STATE.task, SearchConfig(6, 3), 0)], outer, 1))
    assert tree.iterations == 6 and tree.root.children


def test_the_plain_draw_is_the_first_candidate_of_five():
    """Common random numbers: arms in the same state see the same first samples."""
    for agent in (Scripted(), Filtered(Scripted(("a", "b", REFUSED, "c")), MAZE)):
        for i in range(50):
            key = (0, f"t{i}", "0")
            (one,) = ask(agent, 1, key)
            (best,) = ask(Reranked(agent, Table(dict.fromkeys("abc", 0.0)), 5), 1, key)
            assert best.considered[0].action == one.action


# -- filtering --------------------------------------------------------------------------------


def test_redraws_until_accepted_and_counts():
    proposals = ask(Filtered(Scripted(("a", REFUSED, REFUSED)), MAZE, attempts=60), n=40)
    assert {p.action for p in proposals} == {"a"}
    assert sum(p.cost.refused for p in proposals) > 40
    assert all(p.cost.tokens == 2 * (1 + p.cost.refused) for p in proposals)


def test_draws_from_the_distribution_given_accepted():
    agent = Filtered(Scripted(("a", "a", "b", REFUSED)), MAZE, attempts=60)
    counts = first_actions(agent, 900)
    assert stats.chisquare([counts["a"], counts["b"]], [600, 300]).pvalue > 0.001


def test_gives_up_after_attempts_and_keeps_the_last_draw():
    agent = Scripted((REFUSED,))
    (proposal,) = ask(Filtered(agent, MAZE, attempts=3))
    assert proposal.action == REFUSED and proposal.cost.refused == 2 and len(agent.calls) == 3


def test_accepted_draws_are_left_alone_and_only_refused_slots_are_redrawn():
    inner = Scripted(("a", "b", REFUSED))
    before = ask(inner, n=20)
    inner.calls.clear()
    after = ask(Filtered(inner, MAZE, attempts=60), n=20)
    kept = [p.action != REFUSED for p in before]
    assert [p for p, k in zip(before, kept, strict=True) if k] == [
        p for p, k in zip(after, kept, strict=True) if k
    ]
    assert inner.calls[1][0].n == kept.count(False)


def test_replies_that_name_no_action_are_counted_in_the_slot_and_in_the_choice():
    class Talkative:
        def propose(self, asked):
            return [
                [
                    Proposal(p.action, cost=Cost(tokens=1, unparsable=int(p.action == REFUSED)))
                    for p in row
                ]
                for row in Scripted(("a", REFUSED, "b")).propose(asked)
            ]

    filtered = Filtered(Talkative(), MAZE, attempts=60)
    proposals = ask(filtered, n=12)
    assert sum(p.cost.unparsable for p in proposals) == sum(p.cost.refused for p in proposals) > 0
    assert all(p.cost.unparsable == p.cost.refused for p in proposals)
    best, second = ask(Reranked(filtered, None, 12), n=2)
    assert (best.cost.unparsable, second.cost.unparsable) == (
        sum(p.cost.unparsable for p in proposals),
        0,
    )
    ended = next(lockstep([episode(MAZE, MAZE.tasks("test")[0], 0)], filtered, 1))
    grown = next(
        lockstep([search(MAZE, MAZE.tasks("test")[0], SearchConfig(9, 3), 0)], filtered, 1)
    )
    for record in (ended, tree_record(grown), tree_episode(grown)):
        assert record["unparsable"] == record["refused"] > 0


def test_what_only_trying_can_tell_is_kept():
    class Unsure(Maze):
        def accepts(self, state, action):
            return None

    assert ask(Filtered(Fixed([REFUSED]), Unsure()))[0].cost.refused == 0


def test_redraws_come_from_the_fallback():
    greedy, sampled = Fixed([REFUSED]), Scripted(("b",))
    (proposal,) = ask(Filtered(greedy, MAZE, fallback=sampled))
    assert (proposal.action, proposal.cost.refused, proposal.cost.tokens) == ("b", 1, 3)
    assert ask(Filtered(greedy, MAZE))[0].action == REFUSED
    kept = Scripted(("c",))
    assert ask(Filtered(Fixed(["a"]), MAZE, fallback=kept))[0].action == "a" and not kept.calls


@pytest.mark.parametrize("n", [1, 4])
def test_filtered_is_the_same_alone_and_in_a_batch(n):
    agent = Filtered(Scripted(("a", "b", REFUSED, REFUSED)), MAZE)
    requests = [Request(STATE, n, (0, f"t{i}", "0")) for i in range(12)]
    assert agent.propose(requests) == [agent.propose([r])[0] for r in requests]


# -- all admissible actions -------------------------------------------------------------------


class Flat:
    """A model that finds longer replies less likely; counts what it is asked."""

    def __init__(self):
        self.asked = []

    def prompt(self, state):
        return None, (1, 2)

    def prompts(self, states):
        return [self.prompt(state) for state in states]

    def action_ids(self, prompt, action):
        return tuple(action.encode())

    def log_probs(self, prompts, replies):
        self.asked += [bytes(r).decode() for row in replies for r in row]
        return [[-float(len(r)) for r in row] for row in replies]


def test_listed_adds_what_was_not_sampled_and_only_what_is_accepted():
    state = replace(STATE, admissible=("a", "b", "refused", "search[<words>]", "c"))
    lm = Flat()
    candidates = Listed(Fixed(["b"], [-0.5]), MAZE, lm).propose([Request(state, 2, (0, "t", "0"))])[
        0
    ]
    assert [(p.action, p.log_prob) for p in candidates] == [
        ("b", -0.5),
        ("b", -0.5),
        ("a", -1.0),
        ("c", -1.0),
    ]
    assert lm.asked == ["a", "c"]
    q = Table({"a": 0.0, "b": 1.0, "c": 2.0})
    assert (
        Reranked(Listed(Fixed(["b"], [-0.5]), MAZE, lm), q, 2)
        .propose([Request(state, 1, (0, "t", "0"))])[0][0]
        .action
        == "c"
    )
    held = Reranked(Listed(Fixed(["b"], [-0.5]), MAZE, lm), q, 2, prior_weight=4.0).propose(
        [Request(state, 1, (0, "t", "0"))]
    )
    assert held[0][0].action == "b"  # the prior holds the unlikely action back


def test_listed_where_the_environment_lists_nothing():
    state = replace(STATE, admissible=None)
    assert [
        p.action
        for p in Listed(Fixed(["b"]), MAZE, Flat()).propose([Request(state, 1, (0, "t", "0"))])[0]
    ] == ["b"]


class Steep(Flat):
    """A model that finds later letters less likely."""

    def log_probs(self, prompts, replies):
        return [[96.0 - r[0] for r in row] for row in replies]


def test_choosing_draws_what_is_listed_and_accepted_as_often_as_the_model_says():
    state = replace(STATE, admissible=("a", "b", REFUSED, "c"))
    requests = [Request(state, 5, (0, f"t{i}", "0")) for i in range(300)]
    agent = Choosing(Scripted(("x",)), MAZE, Steep())
    answers = agent.propose(requests)
    drawn = Counter(p.action for row in answers for p in row)
    shares = np.exp([-1.0, -2.0, -3.0])
    expected = 1500 * shares / shares.sum()
    assert set(drawn) == {"a", "b", "c"}
    assert stats.chisquare([drawn[a] for a in ("a", "b", "c")], expected).pvalue > 0.01
    assert all(p.log_prob == 96.0 - ord(p.action) for row in answers for p in row)
    assert answers[7] == agent.propose([requests[7]])[0]
    assert [p.cost for p in answers[0]][1:] == [Cost(tokens=len(p.action)) for p in answers[0][1:]]
    assert answers[0][0].cost.prompt_tokens == 2
    held = replace(agent, top_p=0.8).propose(requests)
    assert {p.action for row in held for p in row} == {"a", "b"}
    (likeliest,) = replace(agent, temperature=0.0).propose(requests[:1])
    assert [p.action for p in likeliest] == ["a"] * 5


def test_choosing_leaves_free_text_and_what_is_not_listed_to_the_agent():
    states = [
        replace(STATE, admissible=listed)
        for listed in (None, ("a",), ("a", "search[<words>]"), (REFUSED,))
    ]
    agent = Choosing(Fixed(["b"]), MAZE, Flat())
    answers = agent.propose([Request(state, 1, (0, "t", "0")) for state in states])
    assert [row[0].action for row in answers] == ["b", "a", "b", "b"]
