"""The scripted reader: right without errors, fallible with them, a function of its keys."""

import re

import numpy as np
import pytest

from qvlib.core.episodes import episode
from qvlib.core.lockstep import lockstep
from qvlib.core.types import Request
from qvlib.environments import hotpotqa
from qvlib.environments.hotpotqa.questions import Question
from qvlib.environments.hotpotqa.reader import Habits, Reader, reading_order
from qvlib.models.prompts import compact

NO_ERRORS = dict.fromkeys(Habits.__dataclass_fields__, 0.0) | {"careless": 1.0}


@pytest.fixture(scope="module")
def world(encyclopaedia):
    return hotpotqa.build(encyclopaedia)


def play(world, reader, split="train", tasks=400):
    return list(
        lockstep((episode(world, task, 0) for task in world.tasks(split)[:tasks]), reader, 64)
    )


def mean(records):
    return float(np.mean([r["reward"] for r in records]))


def test_it_earns_what_a_demonstrator_should(world):
    records = play(world, Reader(world))
    assert 0.35 < mean(records) < 0.6  # 0.51 over 6,000 questions of 1,500 articles
    assert records == play(world, Reader(world))
    assert (
        np.mean([r["done"] for r in records]) > 0.95 and len({r["env_steps"] for r in records}) > 4
    )


@pytest.mark.parametrize("habit", [name for name in NO_ERRORS if name not in ("careless", "trust")])
def test_each_error_costs(world, habit):
    assert mean(play(world, Reader(world, Habits(**NO_ERRORS | {habit: 0.9})), tasks=100)) < 0.95


def test_without_errors_it_is_right(world):
    assert mean(play(world, Reader(world, Habits(**NO_ERRORS)), tasks=100)) == 1.0


def test_it_errs_in_careless_episodes_alone(world):
    """Careless it seldom gets through; careless in half of the episodes it earns between."""
    half, all_of_them = (play(world, Reader(world, Habits(careless=share))) for share in (0.5, 1.0))
    assert mean(all_of_them) < 0.25 and abs(mean(half) - (0.5 + 0.5 * mean(all_of_them))) < 0.08
    actions = {r["task"]: r["actions"] for r in all_of_them}
    gold = {r["task"]: r["actions"] for r in play(world, Reader(world, gold=True))}
    assert all(r["actions"] in (actions[r["task"]], gold[r["task"]]) for r in half)


def test_trusting_makes_a_wrong_article_worse(world):
    similar = NO_ERRORS | {"similar": 0.3}
    unsure, trusting = (
        mean(play(world, Reader(world, Habits(**similar | {"trust": trust})), tasks=200))
        for trust in (0.0, 0.9)
    )
    assert trusting < unsure - 0.1


def test_a_draw_depends_on_its_key_alone(world):
    states = [world.reset(task) for task in world.tasks("dev")[:4]]
    requests = [Request(state, 5, (0, state.task.id, "0")) for state in states]
    reader = Reader(world)
    together = reader.propose(requests)
    assert together == [reader.propose([request])[0] for request in requests]
    assert len({p.action for row in together for p in row}) > 6


def test_its_actions_survive_the_small_agents_prompt(world):
    """A decoded episode earns the same: lower case and aliases for names are enough."""
    for task in world.tasks("train")[:100]:
        state = world.reset(task)
        while not state.done:
            ((proposal,),) = Reader(world, gold=True).propose(
                [Request(state, 1, (0, task.id, "0"))]
            )
            prompt = compact(state)
            after = world.step(state, prompt.decode(prompt.encode(proposal.action)))
            assert after.observation == world.step(state, proposal.action).observation
            state = after
        prompt = compact(state)
        shown = prompt.names.show(prompt.text).lower()
        words = set(re.findall(r"\w+", shown))
        assert state.reward == 1.0
        for step in state.history[:-1]:
            assert set(re.findall(r"\w+", step.observation.lower())) - {"the"} <= words


def test_it_looks_up_what_one_can_think_of_before_reading_it(world):
    """No name that only the sentence it looks for would tell."""
    found = [
        re.fullmatch(r"lookup\[(.*)\]", a)
        for r in play(world, Reader(world, gold=True))
        for a in r["actions"]
    ]
    words = {match[1] for match in found if match}
    assert "moved" in words and all(word.islower() for word in words)


def test_what_the_question_names_is_read_first():
    facts = (("Ann Moor", 1), ("The Bell", 0), ("Ann Moor", 0))
    assert reading_order(Question("1", "Who directed The Bell?", "x", facts=facts)) == (
        "The Bell",
        "Ann Moor",
    )
    assert reading_order(Question("1", "Who directed it?", "x", facts=facts)) == (
        "Ann Moor",
        "The Bell",
    )


def test_the_gold_path_of_the_official_format(hotpot, write):
    world = hotpotqa.build(write(hotpot))
    tasks = [t for tasks in world.splits.values() for t in tasks]
    actions = {
        r["task"]: r["actions"]
        for r in lockstep((episode(world, t, 0) for t in tasks), Reader(world, gold=True), 4)
    }
    assert actions["hotpotqa-q1"] == ["search[The Bell]", "search[Ann Moor]", "finish[Arl]"]
    assert actions["hotpotqa-q2"] == ["search[The Bell]", "lookup[won]", "finish[1999]"]
    assert actions["hotpotqa-q3"] == ["search[Bob Lane]", "finish[yes]"]


def test_an_article_that_cannot_be_opened_is_left_out(hotpot, write):
    hotpot["hotpot_tiny_v1.json"][0]["supporting_facts"].append(["Moor", 0])
    world = hotpotqa.build(write(hotpot))
    task = next(t for tasks in world.splits.values() for t in tasks if t.id == "hotpotqa-q1")
    (record,) = lockstep([episode(world, task, 0)], Reader(world, gold=True), 1)
    assert (
        record["reward"] == 1.0 and "search[Moor]" in record["actions"] and record["env_steps"] == 4
    )


def test_the_real_questions(hotpotqa_data):
    world = hotpotqa.build(hotpotqa_data)
    assert mean(play(world, Reader(world, gold=True), "test", 368)) == 1.0
    assert 0.3 < mean(play(world, Reader(world), "test", 368)) < 0.6  # 0.53 over all 2,032


def test_how_often_it_errs_can_be_scaled(world):
    rewards = [
        mean(play(world, Reader(world, Habits().scaled(errors)), tasks=100))
        for errors in (0.0, 0.5, 1.0, 2.0)
    ]
    assert rewards[0] == 1.0 and rewards == sorted(rewards, reverse=True) and len(set(rewards)) == 4
    assert Habits().scaled(1.0) == Habits()
