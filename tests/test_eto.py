"""The baseline ETO: what it is tuned on, that it learns it, and its arm in a run."""

from __future__ import annotations

import pytest
from killing import run

from qvlib import pipeline
from qvlib.base.errors import QvlibError
from qvlib.core.episodes import decisions
from qvlib.estimators.trajectories import best_and_worst
from qvlib.pipeline import trees
from qvlib.pipeline.pairs import load_trees
from qvlib.pipeline.params import make
from qvlib.report import numbers, sentences
from qvlib.runs.stage import read_stage


def likelihood(lm, environment, task, actions) -> float:
    """Log-probability of an episode's actions, nats."""
    made = list(decisions(environment, task, actions))
    prompts = [lm.prompt(state) for state, _ in made]
    replies = [[lm.action_ids(p, a)] for (p, _), (_, a) in zip(prompts, made, strict=True)]
    return sum(total for (total,) in lm.log_probs([ids for _, ids in prompts], replies))


def margins(lm, context) -> list[float]:
    """By how many nats a model prefers the best to the worst episode of each tree."""
    tasks = {task.id: task for task in context.environment.tasks("train")}
    most = context.params.world.max_steps
    found = [(tree["task"], best_and_worst(tree, most)) for tree in load_trees(context.params)]
    return [
        likelihood(lm, context.environment, tasks[name], two[0])
        - likelihood(lm, context.environment, tasks[name], two[1])
        for name, two in found
        if two
    ]


@pytest.mark.slow
def test_the_agent_comes_to_prefer_better_episodes_and_is_an_arm_of_its_own(
    undisturbed, monkeypatch
):
    # so small an agent ends no episode: the shopper's own searches do
    monkeypatch.setattr(trees, "collector", lambda context: context.demonstrator())
    params = undisturbed.replace(iterations=24, eto=True, eto_lr=1e-3, eto_epochs=6)
    params = params.replace(name="with-eto")
    run(params)
    context = pipeline.context_of(params)
    facts = read_stage(params, "eto").facts
    before, after = (margins(context.model(which), context) for which in ("agent", "eto"))
    assert 0 < facts["pairs"] <= len(before) == len(after)
    assert sum(after) > sum(before) + len(before), "by more than a nat an episode"
    tuned, own = (read_stage(params, f"episodes/{arm}") for arm in ("eto", "sample"))
    assert tuned.path.name != own.path.name
    metrics = numbers.metrics(params)
    assert "eto" in metrics["gains"] and metrics["cost"]["eto_seconds"] > 0
    assert "(ETO)** over one sample" in sentences.verdict(metrics)
    assert {arm.name for arm in params.arms()} - {arm.name for arm in undisturbed.arms()} == {"eto"}


def test_its_settings_decide_its_stage_alone():
    base = make({"eto": True})
    assert {"eto", "episodes/eto"} <= set(base.stages())
    assert {"eto", "episodes/eto"}.isdisjoint(make({}).stages())
    other = make({"eto": True, "eto_lr": 3e-5, "eto_beta": 0.5, "eto_epochs": 1})
    changed = {stage for stage in base.stages() if base.digest(stage) != other.digest(stage)}
    assert changed == {"eto", "episodes/eto"}
    assert base.digest("eto") == base.replace(estimator="agentrm").digest("eto")


def test_an_agent_behind_a_server_is_told_at_once():
    with pytest.raises(QvlibError, match=r"eto: api:.* is behind a server .* unset eto"):
        pipeline.train_agents(make({"eto": True, "agent": "api:any", "q_base": "smollm2"}))
