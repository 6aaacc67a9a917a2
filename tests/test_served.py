"""A whole run with a model behind a real server, and the same run when the server is gone."""

from __future__ import annotations

import copy
from itertools import product
from math import log
from urllib.parse import urlsplit

import pandas as pd
import pytest
import torch
from test_chat import reading
from toy import Maze

from qvlib import environments, pipeline
from qvlib.base.errors import QvlibError
from qvlib.environments import WorldSettings
from qvlib.estimators.data import action_log_probs
from qvlib.models.chat import Chat
from qvlib.models.local import quiet
from qvlib.models.templates import ending, render
from qvlib.models.training import descend
from qvlib.pipeline.models import _client
from qvlib.pipeline.params import make

pytest.importorskip("openai", reason="needs the package openai: pip install -e '.[api]'")

from serving import listens, serving
from test_remote import run

SMALL = {
    "environment": f"{__name__}:maze",
    "demonstrations": 1,
    "other_demonstrations": 0,
    "train_tasks": 3,
    "test_tasks": 2,
    "iterations": 6,
    "search_iterations": 1,
    "control_shuffles": 1,
    "expand_n": 3,
    "heldout_share": 0.0,
    "max_action_tokens": 2,
    "bootstrap": 100,
    "wandb_mode": "disabled",
    "api_key_variable": "",
    "api_retries": 1,
}


def maze(settings: WorldSettings) -> Maze:
    """The environment of the run: three choices among three words."""
    return Maze()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small chat model that has learnt to reply with an action, not with which."""
    lm, world, made = reading("tags"), Maze(), tmp_path_factory.mktemp("served") / "tiny"
    model, tokenizer = copy.deepcopy(lm.model), lm.tokenizer
    told = environments.world_of(SMALL["environment"]).instructions
    style, end = Chat(tokenizer, told, lambda task: "at start"), ending(tokenizer)[1]
    states = [world.reset(task) for task in world.tasks("train")[:4]]
    states += [world.step(state, action) for state, action in product(states, world.choices)]
    rows = [
        (ids(tokenizer, render(tokenizer, style.messages(state))), (*ids(tokenizer, action), end))
        for state, action in product(states, world.choices)
    ]
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    model.train()
    for _ in range(120):
        loss = -action_log_probs(model, rows, "mean", end).mean()
        descend(model, optimizer, [loss], longest=None)
    # All that is left is which of three words: log(3) nats over a word and the end.
    assert loss < log(3) / 2 + 0.03
    model.generation_config.do_sample, model.generation_config.eos_token_id = True, [end]
    with quiet():
        model.eval().save_pretrained(made)
    tokenizer.save_pretrained(made)
    return made


def ids(tokenizer, text: str) -> tuple[int, ...]:
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


@pytest.mark.slow
def test_a_run_with_a_real_server_is_repeated_when_the_server_is_gone(folder, tmp_path):
    given = {
        **SMALL,
        "agent": f"api:{folder}",
        "q_base": str(folder),
        "api_cache": str(tmp_path / "replies.jsonl"),
    }
    with serving(folder) as base_url:
        given["api_base_url"] = base_url
        first = run(make({**given, "runs_dir": str(tmp_path / "one")}))
    assert not listens(urlsplit(base_url).port)
    arms = first["arms"].set_index("arm")
    assert {"sample", "greedy", "q_n5", "q_n10", "tuned_policy", "control_q_n5", "search"} <= set(
        arms.index
    )
    assert (
        arms["reward"].max() > 0
        and arms.loc["sample", "refused_share"] < 0.9
        and arms.loc["sample", "prompt_tokens"] > 50
    )
    kept = (tmp_path / "replies.jsonl").read_bytes()
    _client.cache_clear()  # as in a new process
    second = run(make({**given, "runs_dir": str(tmp_path / "two"), "api_offline": True}))
    for name, table in first.items():
        pd.testing.assert_frame_equal(table, second[name])
    assert (tmp_path / "replies.jsonl").read_bytes() == kept
    # Another seed needs other draws: the first run was the server's, not the cache's.
    other = make({**given, "runs_dir": str(tmp_path / "three"), "api_offline": True, "seed": 1})
    pipeline.train_agents(other)
    with pytest.raises(QvlibError, match="is needed, but api_offline is set"):
        pipeline.collect(other)
