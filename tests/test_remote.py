"""A run with an agent behind a chat server and a local Q model; then again without the server."""

from __future__ import annotations

import re

import pandas as pd
import pytest
from test_chat import told

from qvlib import pipeline
from qvlib.base.errors import QvlibError
from qvlib.core.types import Request, Task
from qvlib.models.chat import Chat
from qvlib.models.loading import remote_model
from qvlib.pipeline import Context
from qvlib.pipeline.params import make
from qvlib.report import numbers
from qvlib.runs.stage import read_stage

pytest.importorskip("openai", reason="needs the package openai: pip install -e '.[api]'")

from faulty_server import FaultyServer
from toy import Maze

SMALL = {
    "catalogue_products": 200,
    "catalogue_seed": 3,
    "demonstrations": 1,
    "other_demonstrations": 0,
    "train_tasks": 6,
    "test_tasks": 6,
    "dev_share": 0.2,
    "processes": 2,
    "wandb_mode": "disabled",
    "agent": "api:shop-1",
    "iterations": 8,
    "search_iterations": 6,
    "control_shuffles": 1,
    "max_steps": 6,
    "heldout_share": 0.3,
    "bootstrap": 100,
    "api_retries": 3,
    "api_timeout": 10.0,
}


def shopper(body, rng) -> str:
    """Searches a word of the task, opens what is listed, buys now and then.

    Sometimes it writes no action at all.
    """
    page = body["messages"][-1]["content"]
    task = re.search("Task: (.*)", "\n".join(m["content"] for m in body["messages"]))[1]
    words = [
        word
        for word in re.findall("[a-z]{4,}", task.lower())
        if word not in ("find", "need", "want", "show", "price", "lower", "than")
    ]
    links = [
        f"click[{x.lower()}]"
        for x in re.findall(r"^(?:[A-Z]\d{6}\w+|Buy Now|Description)$", page, re.MULTILINE)
    ]
    choices = (
        links
        if links and rng.random() < 0.8
        else [f"search[{words[rng.integers(len(words))]}]", "hm, let me think"]
    )
    said = choices[rng.integers(len(choices))]
    return f"Thought: it may do.\nAction: {said}" if rng.random() < 0.5 else said


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The folder of a small random chat model."""
    lm, made = told("tags"), tmp_path_factory.mktemp("reference")
    lm.model.save_pretrained(made)
    lm.tokenizer.save_pretrained(made)
    return str(made)


def run(params) -> dict[str, pd.DataFrame]:
    for stage in (
        pipeline.train_agents,
        pipeline.collect,
        pipeline.make_pairs,
        pipeline.train_q,
        pipeline.play,
    ):
        stage(params)
    return {
        "arms": numbers.arm_table(params),
        "gains": numbers.gain_table(params),
        "episodes": pd.concat(
            [read_stage(params, f"episodes/{arm.name}").table("episodes") for arm in params.arms()],
            ignore_index=True,
        ).drop(columns="trace"),
    }


def test_a_served_model_sends_the_fields_that_are_added():
    """They reach the requests of every agent of the model; None leaves a field out."""
    with FaultyServer() as server:
        lm = remote_model(
            "api:shop-1",
            chat=lambda tokenizer: Chat(tokenizer, "Shop.", lambda task: "at start"),
            max_action_tokens=7,
            extra={"top_k": 3, "max_tokens": None, "max_completion_tokens": 9},
            base_url=server.base_url,
            key_variable="",
        )
        for temperature in (1.0, 0.0):
            lm.agent(temperature, 0.9).propose([Request(Maze().reset(Task("t", "buy")), 1, ())])
    assert [body["temperature"] for body in server.seen] == [1.0, 0.0]
    for body in server.seen:
        assert (body["model"], body["top_k"], body["max_completion_tokens"]) == ("shop-1", 3, 9)
        assert "max_tokens" not in body


def test_a_run_is_repeated_without_the_server(reference, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-of-this-test")
    with FaultyServer(reply=shopper) as server:
        server.faults.extend(["429", "500", "cut", "empty"])
        given = {
            **SMALL,
            "q_base": reference,
            "api_base_url": server.base_url,
            "api_cache": str(tmp_path / "replies.jsonl"),
        }
        first = run(make({**given, "runs_dir": str(tmp_path / "one")}))
    asked = len(server.seen)
    arms = set(first["arms"]["arm"])
    assert {
        "sample",
        "greedy",
        "q_n5",
        "q_n10",
        "tuned_policy",
        "control_q_n5",
        "search",
    } <= arms and "likely_n5" not in arms
    assert first["arms"]["reward"].max() > 0 and asked > 50
    played, shares = first["episodes"], first["arms"].set_index("arm")["unparsable_share"]
    assert (played["unparsable"] > 0).any() and (
        played["unparsable"] <= played["proposals"] + played["refused"]
    ).all()
    assert 0 < shares["sample"] < 0.5 and shares["tuned_policy"] > 0  # the Q model is a random one
    priced = make(
        {
            **given,
            "runs_dir": str(tmp_path / "one"),
            "api_price_prompt": 2.0,
            "api_price_completion": 10.0,
        }
    )
    costs = numbers.cost(priced, numbers.load_by_task(priced))
    asked_of_it = played[played["arm"] != "tuned_policy"]  # which is the Q model's own
    usd = [
        frame["prompt_tokens"].sum() * 2.0 + frame["tokens"].sum() * 10.0
        for frame in (asked_of_it, pd.DataFrame(read_stage(priced, "trees").records("trees")))
    ]
    assert costs["usd"] == pytest.approx(sum(usd) / 1e6) and costs["usd"] > 0
    assert "usd" not in numbers.cost(
        make({**given, "runs_dir": str(tmp_path / "one")}), numbers.load_by_task(priced)
    )
    monkeypatch.delenv("OPENAI_API_KEY")
    second = run(make({**given, "runs_dir": str(tmp_path / "two"), "api_offline": True}))
    assert len(server.seen) == asked
    for name, table in first.items():
        pd.testing.assert_frame_equal(table, second[name])
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or b"sk-secret" not in file.read_bytes(), file


def test_what_a_served_agent_cannot_do_is_told(reference, tmp_path):
    params = make(
        {
            **SMALL,
            "runs_dir": str(tmp_path),
            "api_base_url": "http://127.0.0.1:9/v1",
            "q_base": reference,
        }
    )
    with pytest.raises(QvlibError, match="warm_start: api:shop-1 is behind a server"):
        pipeline.train_agents(params.replace(warm_start=True))
    with pytest.raises(QvlibError, match="rft: api:shop-1 is behind a server"):
        pipeline.train_agents(params.replace(rft=True))
    assert pipeline.train_agents(params).facts == {"model": "api:shop-1"}
    context = pipeline.context_of(params)
    lm, world = context.model(), context.environment
    state = world.reset(world.tasks("train")[0])
    prompt, ids = lm.prompt(state)
    assert prompt.text.startswith("system: You are shopping") and ids == ()
    with pytest.raises(QvlibError, match=r"127\.0\.0\.1:9"):
        hasty = Context(params.replace(api_retries=0), world)
        hasty.sampler().propose([Request(state, 1, (0, state.task.id, ""))])
    with pytest.raises(QvlibError, match="q_base is empty, and api:shop-1 is behind a server"):
        Context(params.replace(q_base=""), world).reference()
    with pytest.raises(QvlibError, match="rule_tasks: scoring rules weigh log-probabilities"):
        pipeline.trials.rule_players(context, [])
