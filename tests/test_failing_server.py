"""Collecting from a server that fails in every way there is.

Faults that pass leave no trace, one that stays is told.
"""

from __future__ import annotations

import json
from collections import deque
from pathlib import Path

import pytest

from qvlib import pipeline
from qvlib.base.errors import QvlibError
from qvlib.base.seeding import generator
from qvlib.pipeline import models
from qvlib.pipeline.params import Params, make
from qvlib.runs.stage import read_stage, stage_path

pytest.importorskip("openai", reason="needs the package openai: pip install -e '.[api]'")

from faulty_server import FaultyServer
from test_api_agent import KEY, PASSING, SEEN
from test_remote import SMALL, shopper

from qvlib.models.api_client import ApiClient

REFUSED = {
    "400": "HTTP 400",
    "401": "HTTP 401",
    "403": "HTTP 403",
    "404": "HTTP 404",
    "422": "HTTP 422",
    "402": "HTTP 402",
}
TASKS = 3


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture(scope="module")
def server():
    with FaultyServer(reply=shopper) as running:
        yield running


@pytest.fixture
def params(server, tmp_path):
    """A collecting of one task after the other, that tries again soon."""
    server.faults, server.always, server.seen = deque(), lambda body: None, []
    return small(server, tmp_path)


def small(server: FaultyServer, folder: Path) -> Params:
    return make(
        {
            **SMALL,
            "api_base_url": server.base_url,
            "runs_dir": str(folder),
            "train_tasks": TASKS,
            "iterations": 3,
            "batch_size": 1,
            "api_retries": 3,
            "api_timeout": 0.5,
        }
    )


def collect(params: Params) -> list[dict]:
    """The trees, by task, as a process of its own collects them."""
    models._client.cache_clear()
    client(params).first_wait = 0.01
    pipeline.train_agents(params)
    pipeline.collect(params)
    return sorted(read_stage(params, "trees").records("trees"), key=lambda tree: tree["task"])


def client(params: Params) -> ApiClient:
    """The client of this process, which knows the server of the parameters."""
    return models.served(pipeline.context_of(params), params.agent.agent).client


@pytest.fixture(scope="module")
def undisturbed(server, tmp_path_factory):
    return collect(small(server, tmp_path_factory.mktemp("undisturbed")))


def test_faults_that_pass_leave_no_trace(server, params, undisturbed):
    """Each of them thrice, in a mixed order.

    Not a refusal to answer: it is drawn again, which changes the trees.
    """
    assert len(undisturbed) == TASKS and sum(len(tree["nodes"]) for tree in undisturbed) > 4 * TASKS
    faults = [fault for fault in PASSING if fault != "null"] * 3
    server.faults = deque(
        fault
        for i in generator(0, "faults").permutation(len(faults))
        for fault in (faults[i], None)
    )
    assert collect(params) == undisturbed
    assert not server.faults and client(params).usage["retries"] == len(faults)


def test_refusals_to_answer_end_in_a_finished_stage(server, params, undisturbed):
    server.faults = deque(["null", None] * 10)
    trees = collect(params)
    assert [tree["task"] for tree in trees] == [
        tree["task"] for tree in undisturbed
    ] and trees != undisturbed


def test_a_task_that_the_model_declines_is_searched_with_empty_replies(server, params, undisturbed):
    second = pipeline.context_of(params).uses.search[1].instruction
    server.always = lambda body: (
        "null" if any(second in message["content"] for message in body["messages"]) else None
    )
    trees = collect(params)
    assert [tree["task"] for tree in trees] == [tree["task"] for tree in undisturbed]
    assert sum(tree != other for tree, other in zip(trees, undisturbed, strict=True)) == 1


@pytest.mark.parametrize("fault", [*(fault for fault in PASSING if fault != "null"), *REFUSED])
def test_a_fault_that_stays_is_told_once_and_the_stage_goes_on_when_it_is_gone(
    server, params, undisturbed, fault
):
    second = pipeline.context_of(params).uses.search[1].instruction
    server.always = lambda body: (
        fault if any(second in message["content"] for message in body["messages"]) else None
    )
    with pytest.raises(QvlibError, match={**SEEN, **REFUSED}[fault]) as caught:
        collect(params)
    assert (
        "\n" not in str(caught.value)
        and server.base_url in str(caught.value)
        and "run again to go on" in str(caught.value)
    )
    file = stage_path(params, "trees") / "trees.jsonl"
    finished = file.read_bytes()
    assert finished.count(b"\n") == 1 and json.loads(finished)["nodes"]
    asked = {json.dumps(body) for body in server.seen if not server.always(body)}
    server.always, server.seen = lambda body: None, []
    assert collect(params) == undisturbed
    assert file.read_bytes().startswith(finished)
    assert asked and not asked & {json.dumps(body) for body in server.seen}, (
        "what was answered was asked for again"
    )
