"""The benchmark of search rules: exact bests, paired with the rules as they are."""

from __future__ import annotations

import itertools

from qvlib.agents.search import selection
from qvlib.pipeline.params import make
from qvlib.tools.bench import search_rules


def test_the_best_of_a_random_problem_is_that_of_all_its_episodes():
    problems = search_rules.RandomProblems(max_steps=3)
    for task in problems.tasks("dev")[:5]:
        rewards = []
        for actions in itertools.product(problems.actions, repeat=3):
            state = problems.reset(task)
            for action in actions:
                state = state if state.done else problems.step(state, action)
            assert state.done
            rewards.append(state.reward)
        assert problems.best(task, ()) == max(rewards)
    better = [problems.better(task, (), *pair) for pair in itertools.permutations("abcd", 2)]
    assert set(better) <= {0.0, 0.5, 1.0} and sum(better) == len(better) / 2


def test_every_rule_is_compared_on_the_same_tasks(monkeypatch):
    sizes = {"PROBLEMS": 4, "PRODUCTS": 200, "TASKS": 2, "RESAMPLES": 100}
    for name, value in sizes.items():
        monkeypatch.setattr(search_rules, name, value)
    rows, result = search_rules.run(1)
    assert [row["rules"] for row in rows] == 2 * list(search_rules.RULES)
    for row in rows:
        assert 0 <= row["best there is"] <= 1 and 0 <= row["best reward"] <= 1
        if row["rules"] == "as it is":
            assert row["difference"] == "+0.000 [+0.000, +0.000]"
    assert set(result["ratios"]) == {"random problems", "webshop"}
    for changes in search_rules.RULES.values():
        selection(make(changes).search)  # each is a set of parameters
