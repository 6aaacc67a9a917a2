"""The baseline RFT: what it learns from, that it learns it, and its arm in a run."""

from __future__ import annotations

import pandas as pd
import pytest
from killing import run
from test_chat import told

from qvlib import pipeline
from qvlib.agents.rft import best_episodes
from qvlib.base.errors import QvlibError
from qvlib.core.episodes import decisions, demonstrate
from qvlib.models.chat import Chat
from qvlib.models.prompts import compact
from qvlib.models.small import Demonstration, make_model, train_tokenizer
from qvlib.pipeline.params import make
from qvlib.report import numbers, sentences, tables
from qvlib.runs.stage import open_stage, read_stage

SMALL = {
    "catalogue_products": 200,
    "catalogue_seed": 3,
    "demonstrations": 4,
    "other_demonstrations": 0,
    "train_tasks": 6,
    "test_tasks": 3,
    "dev_share": 0.2,
    "processes": 1,
    "wandb_mode": "disabled",
    "rft": True,
    "rft_lr": 1e-2,
    "rft_epochs": 4,
    "prompt_tokens": 1800,
}


def searched(context) -> list[dict]:
    """Tree records whose best episodes are the scripted shopper's: rewards of all kinds."""
    seed, tasks = context.params.run.seed, context.uses.search
    played = demonstrate(context.environment, tasks, context.demonstrator(), seed, 8)
    root = {"node": "", "parent": None, "action": "", "reward": 0.0, "terminal": False}
    return [
        {
            "task": r["task"],
            "group": r["group"],
            "best_actions": r["actions"],
            "nodes": [{**root, "best_reward": r["reward"]}],
        }
        for r in played
    ]


def given(params, kind: str, folder):
    """A folder with a small random model, prompted as a chat or in the compact style."""
    if kind == "chat":
        lm = told("tags")
        tokenizer, model = lm.tokenizer, lm.model
    else:
        shop = pipeline.context_of(params).environment
        tokenizer = train_tokenizer(
            [Demonstration(shop.reset(task), "search[tea]") for task in shop.tasks("train")[:40]],
            600,
        )
        model = make_model(tokenizer, 32, 1, 2, 0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def likelihood(lm, context) -> float:
    """Log-probability of all that RFT learnt from, in nats."""
    learnt = read_stage(context.params, "rft").table("demonstrations").to_dict("records")
    tasks = {task.id: task for task in context.environment.tasks("train")}
    made = [
        decision
        for record in learnt
        for decision in decisions(context.environment, tasks[record["task"]], record["actions"])
    ]
    prompts = [lm.prompt(state) for state, _ in made]
    replies = [
        [lm.action_ids(prompt, action)]
        for (prompt, _), (_, action) in zip(prompts, made, strict=True)
    ]
    return sum(total for (total,) in lm.log_probs([ids for _, ids in prompts], replies))


@pytest.mark.parametrize(("kind", "style", "rank"), [("chat", Chat, 0), ("compact", compact, 4)])
def test_the_agent_learns_the_best_episodes_of_its_trees(tmp_path, kind, style, rank):
    params = make({**SMALL, "runs_dir": str(tmp_path / "runs"), "warm_rank": rank})
    params = params.replace(**{"agent": given(params, kind, tmp_path / "given")})
    pipeline.train_agents(params)
    trees = searched(pipeline.context_of(params))
    rewards = [tree["nodes"][0]["best_reward"] for tree in trees]
    floor = sorted(rewards)[len(rewards) // 2]
    assert min(rewards) < floor
    params = params.replace(**{"rft_min_reward": floor})
    with open_stage(params, "trees") as stage:
        for tree in trees:
            stage.append("trees", tree)
        stage.finish()
    facts = pipeline.train_rft(params).facts
    kept = [reward for reward in rewards if reward >= floor]
    assert (facts["trees"], facts["demonstrations"], facts["too_long"]) == (6, len(kept), 0)
    assert facts["demonstrator_reward"] == pytest.approx(sum(kept) / len(kept))
    stage = read_stage(params, "rft")
    assert facts["decisions"] == stage.table("demonstrations")["actions"].map(len).sum()
    curve = stage.table("curve")
    assert not (stage.path / "training").exists()  # the checkpoints
    assert curve["action_loss"].iloc[-1] < curve["action_loss"].iloc[0] - 0.3
    context = pipeline.context_of(params)
    tuned = context.model("rft")
    assert tuned.style.func is compact if style is compact else isinstance(tuned.style, style)
    assert likelihood(tuned, context) > likelihood(context.model(), context) + facts["decisions"]
    assert [arm.name for arm in params.arms()].count("rft") == 1
    assert "rft" not in [arm.name for arm in params.replace(rft=False).arms()]


def test_trees_without_a_good_episode_are_told():
    def tree(reward, actions):
        return {
            "task": f"t{reward}",
            "group": "g",
            "best_actions": actions,
            "nodes": [
                {
                    "node": "",
                    "parent": None,
                    "action": "",
                    "reward": 0.0,
                    "terminal": False,
                    "best_reward": reward,
                }
            ],
        }

    trees = [tree(0.25, ["a"]), tree(0.75, ["b", "c"]), tree(0.0, [])]
    assert best_episodes(trees, 0.5) == [
        {"task": "t0.75", "group": "g", "reward": 0.75, "actions": ["b", "c"]}
    ]
    assert len(best_episodes(trees, 0.0)) == 2  # where nothing ended there is nothing to learn
    with pytest.raises(QvlibError, match="no episode in 1 trees has ended; raise iterations"):
        best_episodes([tree(0.0, [])], 0.0)
    with pytest.raises(
        QvlibError,
        match=r"best episode in 3 trees has a reward of 0\.750, under rft_min_reward = 0\.9; lower",
    ):
        best_episodes(trees, 0.9)


@pytest.mark.slow
def test_the_arm_stands_beside_the_others(undisturbed):
    """The cloned agent: with the arm, nothing but the arm is added."""
    params = undisturbed.replace(rft=True, rft_min_reward=0.1, name="with-rft")
    run(params)
    facts = read_stage(params, "rft").facts
    assert (
        0 < facts["demonstrations"] <= facts["trees"] == params.search.train_tasks
        and facts["demonstrator_reward"] >= 0.1
    )
    sampled = {arm.name: params.digest(f"episodes/{arm.name}") for arm in undisturbed.arms()}
    assert sampled == {
        arm.name: undisturbed.digest(f"episodes/{arm.name}") for arm in undisturbed.arms()
    }  # so that the other arms are found again, not played
    plain, played = (numbers.test_episodes(p) for p in (undisturbed, params))
    added = played["arm"] == "rft"
    assert set(played["arm"][added]) == {"rft"} and added.sum() == params.evaluation.test_tasks
    pd.testing.assert_frame_equal(plain, played[~added].reset_index(drop=True))
    metrics, without = numbers.metrics(params), numbers.metrics(undisturbed)
    assert set(metrics["arms"]) == {*without["arms"], "rft"} and "rft_seconds" in metrics["cost"]
    assert "(RFT)** over one sample" in sentences.verdict(metrics)
    assert "(RFT)" not in sentences.verdict(without)
    made = tables.write_tables(pipeline.context_of(params))
    assert "rft" in set(made["stages"]["stage"]) and "rft" in set(made["summary"]["arm"])
