"""A chat model asked in words for the probability of success: what it reads, what is read of it."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from faulty_server import FaultyServer
from test_chat import OPENED, RULES, SHIRTS, after, told
from test_log_ratio_estimators import Taste, tree
from toy import small_lm

from qvlib import pipeline
from qvlib.base.errors import QvlibError
from qvlib.core.preferences import build_pairs, hold_out
from qvlib.core.types import Step
from qvlib.estimators import Problem, estimator_of
from qvlib.models.asking import NUMBER, WORDS, Number, Question, Words, number
from qvlib.models.chat import Chat
from qvlib.models.loading import remote_model
from qvlib.models.templates import render
from qvlib.pipeline.cards import notes
from qvlib.pipeline.context import Context
from qvlib.pipeline.params import make

ESTIMATOR = estimator_of("llm_value")


def test_the_question_stands_at_the_end_of_the_agents_conversation():
    lm = told()
    turns = Question(OPENED, "click[buy now]", WORDS).messages(lm.style)
    agents = lm.style.messages(OPENED)
    assert turns[0]["content"] == f"{RULES}\nYou judge what an agent is about to do."
    assert turns[1:-1] == agents[1:-1]
    assert turns[-1] == {
        "role": "user",
        "content": agents[-1]["content"]
        + "\n\nThe agent is about to do: click[buy now]\nWill the task be completed with full "
        "success if it does that now? Reply with `Answer: Yes` or `Answer: No`, nothing else.",
    }


def test_what_an_identifier_stands_for_is_told():
    state = replace(
        after(("search[red shirt]", SHIRTS)),
        admissible=("click[b012345678]",),
        descriptions=("red cotton shirt",),
    )
    style = replace(told().style, words=5)
    asked = Question(state, "click[b012345678]", NUMBER).messages(style)[-1]["content"]
    assert "about to do: click[b012345678] (red cotton shirt)\n" in asked


@pytest.mark.parametrize("template", ["chatml", "headers", "no system", "plain"])
def test_the_score_is_the_share_of_yes_among_yes_and_no(template):
    lm = told(template)
    states, actions = [OPENED, after()], [["click[buy now]", "search[lamp]"], ["search[shirt]"]]
    scores = Words(lm).score(states, actions)
    for state, candidates, row in zip(states, actions, scores, strict=True):
        for action, found in zip(candidates, row, strict=True):
            turns = Question(state, action, WORDS).messages(lm.style)
            text = render(lm.tokenizer, turns, "Answer:")
            assert text.endswith("Answer:")
            logs = {}
            for word in (" Yes", " No"):
                ids, whole = (
                    lm.tokenizer(part, add_special_tokens=False)["input_ids"]
                    for part in (text, text + word)
                )
                assert whole[: len(ids)] == ids
                with torch.no_grad():
                    logits = lm.model(input_ids=torch.tensor([whole])).logits[0, len(ids) - 1 : -1]
                own = torch.log_softmax(logits.double(), -1)
                logs[word] = float(own[range(len(whole) - len(ids)), whole[len(ids) :]].sum())
            share = math.exp(logs[" Yes"]) / (math.exp(logs[" Yes"]) + math.exp(logs[" No"]))
            assert found == pytest.approx(share, rel=1e-4)
    assert [len(row) for row in scores] == [2, 1]
    assert scores[0][0] != scores[0][1]


def test_a_long_state_is_cut_and_the_question_is_not():
    lm = told(budget=160)
    long = after(*[(f"search[{i}]", f"{SHIRTS} and much more of it all") for i in range(9)])
    from qvlib.models.asking import _text

    text = _text(lm, Question(long, "click[buy now]", WORDS), "Answer:")
    assert "about to do: click[buy now]" in text and "(left out)" in text
    assert len(lm.tokenizer(text)["input_ids"]) < len(
        lm.tokenizer(render(lm.tokenizer, lm.style.messages(long)))["input_ids"]
    )


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        ("85", 0.85),
        ("Answer: 85 of 100", 0.85),
        ("about 7.5%", 0.075),
        ("<think>first 10, then 20</think>\n30", 0.3),
        ("100", 1.0),
        ("0", 0.0),
        ("150", None),
        ("-5", None),
        ("surely", None),
        ("", None),
    ],
)
def test_a_number_is_read_of_a_reply(reply, value):
    assert number(reply) == value


def test_a_local_model_replies_greedily_and_what_says_no_number_is_counted(monkeypatch):
    lm = told()
    said = iter([" 80", " well", " 120"])
    words = {}

    def sample(prompts, draws, temperature, top_p):
        assert draws == [[None]] * len(prompts)
        rows = [[((i,), -1.0)] for i in range(len(prompts))]
        words.update({(i,): next(said) for i in range(len(prompts))})
        return rows

    monkeypatch.setattr(lm, "sample", sample, raising=False)
    monkeypatch.setattr(
        type(lm.tokenizer), "decode", lambda self, ids, **options: words[tuple(ids)]
    )
    asked = Number(lm)
    assert asked.score([OPENED], [["a", "b", "c"]]) == [[0.8, 0.5, 0.5]] and asked.unread == 2
    assert "2 replies about held-out pairs held no number" in notes({"unread": 2})[0]


@pytest.fixture
def problem(tmp_path) -> Problem:
    environment = Taste()
    trees = [tree(environment, task) for task in environment.tasks("train")]
    train, held_out = hold_out(build_pairs(trees, "all_siblings"), 0.3, 0)
    return Problem(
        environment, small_lm(), train, held_out, lambda: trees, 0, "ask", tmp_path / "s"
    )


def test_a_model_that_cannot_be_asked_is_told(problem):
    """The small agent knows no words."""
    with pytest.raises(QvlibError, match=r"asks a model in words.* set q_base to a chat") as caught:
        ESTIMATOR.fit(problem, ESTIMATOR.settings())
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_a_local_chat_model_is_asked_and_nothing_else(problem, tmp_path):
    lm = told()
    lm.style = replace(lm.style, first=lambda task: "at start")
    before = {name: value.clone() for name, value in lm.model.state_dict().items()}
    fitted = ESTIMATOR.fit(replace(problem, reference=lm), ESTIMATOR.settings())
    fitted.save(tmp_path / "m")
    assert all(torch.equal(value, before[name]) for name, value in lm.model.state_dict().items())
    assert fitted.facts["pairs"] == 0 and fitted.facts["unread"] == 0
    assert fitted.facts["held_out_pairs"] == len(problem.held_out)
    assert 0 <= fitted.facts["held_out_accuracy"] <= 1
    q = ESTIMATOR.load(tmp_path / "m", lm, ESTIMATOR.settings(), lambda *_: None)
    state = problem.environment.reset(problem.environment.tasks("test")[0])
    (row,) = q.score([state], [["a", "b"]])
    assert all(0 < value < 1 for value in row)


# -- a model behind a server --------------------------------------------------------------------


def taste(body, rng) -> str:
    """Knows what is good in a ``Taste``; of b it has nothing to say."""
    asked = body["messages"][-1]["content"].partition("about to do: ")[2][0]
    return {"a": "90", "b": "hard to say", "c": "I would say 10."}[asked]


def test_a_served_model_is_asked_for_a_number(problem):
    pytest.importorskip("openai", reason="needs the package openai: pip install -e '.[api]'")
    with FaultyServer(reply=taste) as server:
        lm = remote_model(
            "api:judge",
            chat=lambda tokenizer: Chat(tokenizer, "A maze.", lambda task: "at start"),
            max_action_tokens=7,
            base_url=server.base_url,
            key_variable="",
        )
        at = replace(problem, reference=lm)
        with pytest.raises(QvlibError, match="set llm_answer to number"):
            ESTIMATOR.fit(at, ESTIMATOR.settings())
        settings = ESTIMATOR.settings(llm_answer="number")
        facts = ESTIMATOR.fit(at, settings).facts
        state = problem.environment.reset(problem.environment.tasks("test")[0])
        state = replace(state, history=(Step("b", "at b"),), observation="at b")
        q = ESTIMATOR.load(None, lm, settings, None)
        assert q.score([state], [["a", "b", "c"]]) == [[0.9, 0.5, 0.1]] and q.unread == 1
    assert facts["held_out_accuracy"] == 1.0  # one half stands between
    assert facts["unread"] == sum("b" in (p.chosen, p.rejected) for p in problem.held_out)
    body = server.seen[-1]
    assert (body["temperature"], body["max_tokens"]) == (0.0, 7)
    assert body["messages"][0]["content"].endswith("You judge what an agent is about to do.")


def test_a_run_whose_agent_is_served_asks_it_without_another_model(tmp_path):
    """The agent is its own judge: no q_base is needed, as nothing is tuned."""
    from test_remote import SMALL, shopper  # which skips where the package openai is missing

    def judged(body, rng) -> str:
        asked = "about to do" in body["messages"][-1]["content"]
        return "60" if asked else shopper(body, rng)

    with FaultyServer(reply=judged) as server:
        given = SMALL | {"processes": 1, "api_key_variable": "", "api_base_url": server.base_url}
        asks = {"estimator": "llm_value", "llm_answer": "number", "runs_dir": str(tmp_path)}
        params = make(given | asks)
        for stage in (pipeline.train_agents, pipeline.collect, pipeline.make_pairs):
            stage(params)
        made = pipeline.train_q(params)
        context = Context(params)
        task = context.uses.test[0]
        state = context.environment.reset(task)
        assert context.q_model().score([state], [["search[lamp]", "search[shirt]"]]) == [[0.6, 0.6]]
        with pytest.raises(QvlibError, match="cannot be tuned here"):
            Context(make(given | {"runs_dir": str(tmp_path)})).reference()
    assert json.loads((made.path / "model" / "asked.json").read_text()) == {"answer": "number"}
    assert made.facts["unread"] == 0
