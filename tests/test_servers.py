"""Servers as they are: what they refuse, what they send instead of text, and how long and how much.

Each answer is one that a server, a proxy or a gateway gives.
"""

from __future__ import annotations

import gzip
import itertools
import json
import logging
import math
import re
import time
import tracemalloc
import zlib

import pytest

pytest.importorskip("openai", reason="needs the openai package: pip install 'qvlib[api]'")

from faulty_server import FaultyServer, error, replied
from test_api_agent import KEY, MAZE, agent_of, requests, shown

from qvlib.base.addresses import is_loopback, wrong_base_url, wrong_key_variable
from qvlib.base.errors import QvlibError
from qvlib.base.keys import keys_in, looks_like_key, redacted
from qvlib.core.types import Request, State, Step, Task
from qvlib.models import api_client
from qvlib.models.api_answers import Fault, read_answer, retry_after
from qvlib.models.api_cache import ReplyCache
from qvlib.models.api_client import FEW, ApiClient
from qvlib.models.api_refusals import TABLE, done_about
from qvlib.models.chat import BYTES_A_TOKEN, Chat
from qvlib.models.loading import remote_model
from qvlib.pipeline.params import make

SENTENCE = "Show me a lamp that is {} and not too dear, as the last one was."


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture
def server():
    with FaultyServer() as running:
        yield running


def refusing(field: str, status: int, message: str, **more):
    """Refuses each request that has the field."""
    return lambda body: error(status, message, **more) if field in body else None


# -- the table of refusals ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "status", "message", "instead"),
    [
        (
            "max_tokens",
            400,
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
            "'max_completion_tokens' instead.",
            "max_completion_tokens",
        ),
        ("max_completion_tokens", 400, "Unrecognized: max_completion_tokens", "max_tokens"),
        ("seed", 422, "[{'type': 'extra_forbidden', 'loc': ['body', 'seed'], 'msg': 'Extra'}]", ""),
        ("seed", 400, "property 'seed' is unsupported", ""),
        ("stop", 400, "Unsupported parameter: 'stop' is not supported with this model.", ""),
        ("seed", 422, "body.seed: extra fields not permitted", ""),
    ],
)
def test_a_field_that_is_refused_is_replaced_or_left_out_once_and_told(
    server, caplog, field, status, message, instead
):
    server.answer = refusing(field, status, message)
    extra = {"max_tokens": None, field: 9} if field == "max_completion_tokens" else {}
    agent = agent_of(server, stop=("\n",), extra=extra, max_in_flight=1)
    answers = agent.propose(requests(n=3))
    assert all(proposal.action for row in answers for proposal in row)
    first, *rest = server.seen
    assert field in first and len(rest) == 4  # one request more than without
    assert not any(field in body for body in rest)
    if instead:
        assert all(body[instead] == first[field] for body in rest)
    told = [record.getMessage() for record in caplog.records if record.name == "qvlib"]
    assert len(told) == 1 and f"does not take the field {field}" in told[0]


def test_requests_under_way_at_once_learn_together(server, caplog):
    server.delay = 0.05
    server.answer = refusing("seed", 400, "unknown field: seed")
    agent = agent_of(server, n_mode="each", max_in_flight=6)
    assert all(proposal.action for row in agent.propose(requests(n=3)) for proposal in row)
    told = [record for record in caplog.records if record.name == "qvlib"]
    assert len(told) == 1 and len(server.seen) <= 12 + 6


def test_several_fields_are_refused_in_turn(server):
    strict = (refusing(f, 400, f"unknown field: {f}") for f in ("seed", "stop"))
    rules = [*strict, refusing("max_tokens", 400, "max_tokens is not supported")]
    server.answer = lambda body: next(filter(None, (rule(body) for rule in rules)), None)
    agent = agent_of(server, stop=("\n",), max_in_flight=1)
    agent.propose(requests(n=2, count=1))
    assert server.seen[-1].keys() == {
        *("model", "messages", "temperature", "top_p", "n", "max_completion_tokens")
    }


def test_what_draws_are_called_does_not_depend_on_what_the_server_takes(server, tmp_path):
    """So that a cache serves again where the server has learnt the field meanwhile."""
    cache = tmp_path / "replies.jsonl"
    server.answer = refusing("seed", 400, "unknown field: seed")
    answers = agent_of(server, cache=cache).propose(requests())
    server.answer = lambda body: None
    again = agent_of(server, cache=cache, offline=True)
    assert again.propose(requests()) == answers


@pytest.mark.parametrize("field", ["temperature", "top_p", "top_k"])
def test_no_field_is_left_out_that_decides_the_distribution_or_is_not_known(server, field):
    server.answer = refusing(field, 400, f"Unsupported value: {field} is not supported")
    agent = agent_of(server, extra={"top_k": 5})
    with pytest.raises(QvlibError, match=f"refused: HTTP 400 .*{field} is not supported"):
        agent.propose(requests(n=1))
    own = {f"{field} is not supported": f"drop {field}"}
    agent = agent_of(server, extra={"top_k": 5}, refusals=own)
    assert all(row[0].action for row in agent.propose(requests(n=1)))


def test_a_field_that_is_renamed_to_and_fro_ends(server):
    server.answer = lambda body: error(400, "unknown: max_tokens, max_completion_tokens. invalid")
    own = {"max_completion_tokens": "rename max_completion_tokens max_tokens"}
    with pytest.raises(QvlibError, match="refused"):
        agent_of(server, refusals=own, n_mode="each").propose(requests(n=1, count=1))
    assert len(server.seen) < 6


@pytest.mark.parametrize(
    ("own", "wrong"),
    [
        ({"(": "drop seed"}, "no regular expression"),
        ({"seed": "leave seed"}, "nothing that can be done"),
        ({"seed": "drop"}, "nothing that can be done"),
        ({"seed": "drop model"}, "nothing that can be done"),
        ({"seed": "rename messages prompt"}, "nothing that can be done"),
        ({"seed": "rename seed"}, "nothing that can be done"),
    ],
)
def test_own_refusals_are_checked_when_they_are_read(own, wrong):
    with pytest.raises(QvlibError, match=f"api_refusals.*{wrong}"):
        make({"api_refusals": own})
    with pytest.raises(QvlibError, match=f"api_refusals.*{wrong}"):
        ApiClient("m", refusals=own)


def test_own_refusals_reach_the_client_and_decide_nothing_else():
    own = {"no such knob": "drop top_k"}
    assert make({"api_refusals": own}).digest("episodes/q_n5") == make({}).digest("episodes/q_n5")
    assert done_about("no such knob", {"top_k": 1}, own) == ["drop", "top_k"]
    assert done_about("no such knob", {}, own) == []
    for wording, done in TABLE.items():
        assert make({"api_refusals": {wording: done}})


@pytest.mark.parametrize(
    ("message", "done"),
    [
        ("'max_tokens' is too large: 9000. This model supports at most 4096 completion tokens", ""),
        (
            "'max_tokens' or 'max_completion_tokens' is too large: 64. This model's maximum "
            "context length is 4096 tokens and your request has 4090 input tokens",
            "shorten",
        ),
        ("Input validation error: inputs must have less than 1024 tokens", ""),
        ("prompt is too long: 210000 tokens > 200000 maximum", "shorten"),
        ("the request exceeds the available context size, try increasing it", "shorten"),
        ("The model `gpt-9` does not exist", ""),
        ("messages must alternate between user and assistant", ""),
    ],
)
def test_what_a_wording_means(message, done):
    body = {"max_tokens": 1, "seed": 1, "stop": ["\n"]}
    assert " ".join(done_about(message, body, {})) == done


# -- answers of another form --------------------------------------------------------------------


def read(message: dict, reason: str | None = "stop", n: int = 1):
    choice = {"message": message, "finish_reason": reason}
    return read_answer(json.dumps({"choices": [choice] * n}), n, str)


@pytest.mark.parametrize(
    ("message", "reason", "text"),
    [
        ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, "stop", "ab"),
        (
            {
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "Action: no"}]},
                    {"type": "text", "text": "Action: yes"},
                ]
            },
            "stop",
            "Action: yes",
        ),
        ({"content": ["a", "b"]}, "stop", "ab"),
        ({"content": []}, "stop", ""),
        ({"content": None, "reasoning_content": "hm"}, "length", ""),
        ({"content": "", "reasoning_content": "hm"}, "length", ""),
        (
            {
                "content": None,
                "tool_calls": [{"function": {"name": "search", "arguments": '{"query": "lamp"}'}}],
            },
            "tool_calls",
            "search[lamp]",
        ),
        ({"tool_calls": [{"function": {"name": "look", "arguments": "{}"}}]}, "stop", "look"),
        ({"function_call": {"name": "click", "arguments": '{"it": "b"}'}}, "stop", "click[b]"),
        (
            {
                "content": None,
                "tool_calls": [{"function": {"name": "f", "arguments": '{"a": 1, "b": 2}'}}],
            },
            "tool_calls",
            'f({"a": 1, "b": 2})',
        ),
        (
            {"content": None, "tool_calls": [{"function": {"name": "f", "arguments": '{"a": '}}]},
            "length",
            'f({"a": )',
        ),
    ],
)
def test_what_stands_for_the_text_of_a_reply(message, reason, text):
    (reply,) = read(message, reason).replies
    assert (reply.text, reply.finish_reason) == (text, reason)


@pytest.mark.parametrize("message", [{"content": 7}, {"content": [7]}, {"content": {}}, 7, None])
def test_what_is_no_reply(message):
    with pytest.raises(Fault, match="no chat completion"):
        read(message)


@pytest.mark.parametrize(
    ("content", "seen", "remedy"),
    [
        ("\n<!DOCTYPE html><title>Sign in", "DOCTYPE html><title>Sign in", "as api_base_url"),
        ('data: {"choices": []}\n\ndata: [DONE]', "data: {", "not as streams"),
        ("upstream connect error", "'upstream connect error'", "the server's log"),
        ("", "an answer of 0 characters", "the server's log"),
    ],
)
def test_an_answer_that_is_no_json_is_shown_with_what_helps(server, content, seen, remedy):
    server.answer = lambda body: (200, {}, [content.encode()])
    with pytest.raises(QvlibError, match=f"{re.escape(seen)}.*{re.escape(remedy)}"):
        agent_of(server, retries=0).propose(requests(n=1, count=1))


def test_a_byte_order_mark_before_an_answer_is_none_of_it(server):
    status, headers, (content,) = replied({"content": "Action: a"})
    server.answer = lambda body: (status, headers, [b"\xef\xbb\xbf" + content])
    ((proposal,),) = agent_of(server).propose(requests(n=1, count=1))
    assert proposal.action == "a"


def test_a_redirect_that_leads_nowhere_names_the_address(server):
    server.answer = lambda body: (307, {"Location": "/v1/chat/completions"}, [b""])
    with pytest.raises(QvlibError, match=r"HTTP 307; give the address that it leads to"):
        agent_of(server, retries=0).propose(requests(n=1, count=1))


@pytest.mark.parametrize("depth", [400, 200_000])
def test_json_that_is_nested_too_deep_is_a_fault(server, depth):
    nested = f"{'[' * depth}{']' * depth}"
    with pytest.raises(Fault):
        read_answer(nested, 1, str)
    with pytest.raises(Fault):
        read_answer(f'{{"choices": {nested}}}', 1, str)
    server.answer = lambda body: (500, {}, [f'{{"error": {nested}}}'.encode()])
    with pytest.raises(QvlibError, match="HTTP 500") as caught:
        agent_of(server, retries=0).propose(requests(n=1, count=1))
    assert len(str(caught.value)) <= 300


@pytest.mark.parametrize("count", ["1" + "0" * 400, "-3"])
def test_a_kept_reply_with_a_count_that_is_none_is_named(tmp_path, count):
    cache = tmp_path / "replies.jsonl"
    cache.write_text(f'{{"key": "k", "text": "a", "prompt_tokens": {count}}}\n')
    with pytest.raises(QvlibError, match="line 1 is not a reply"):
        ReplyCache(cache).get(["k"])


# -- replies that are of no use -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "reason", "what"),
    [
        (
            {"content": "", "reasoning_content": "first I"},
            "length",
            r"2[01] were cut off; raise max_action_tokens \(128\)",
        ),
        ({"content": None, "reasoning_content": "first I"}, "length", "raise max_action_tokens"),
        ({"content": ""}, "stop", "2[01] are empty; look into the server's log.*delete .*jsonl"),
    ],
)
def test_a_run_ends_where_none_of_the_first_replies_can_be_used(
    server, tmp_path, message, reason, what
):
    server.answer = lambda body: replied(message, finish_reason=reason)
    cache = tmp_path / "replies.jsonl"
    agent = agent_of(server, n_mode="each", max_in_flight=2, cache=cache)
    with pytest.raises(QvlibError, match=f"none of the first 2[01] replies.*{what}") as caught:
        agent.propose(requests(n=30, count=8))
    assert FEW <= len(server.seen) <= FEW + 2 and len(str(caught.value)) <= 300
    asked = len(server.seen)
    with pytest.raises(QvlibError, match=what):  # what was paid for is not asked for again
        agent_of(server, n_mode="each", cache=cache).propose(requests(n=30, count=8))
    assert len(server.seen) == asked


def test_one_reply_of_use_is_enough(server):
    turn = itertools.count()
    server.answer = lambda body: (
        None if next(turn) == FEW - 2 else replied({"content": ""}, finish_reason="length")
    )
    agent = agent_of(server, n_mode="each", max_in_flight=1)
    assert sum(p.action != "" for p in agent.propose(requests(n=60, count=1))[0]) == 1


def test_replies_of_other_text_are_told_once_and_played(server, caplog):
    server.words = ("well, let me think",)
    agent = agent_of(server, n_mode="each", unparsable=lambda text, state: True)
    agent.propose(requests(n=30, count=2))
    told = [record.getMessage() for record in caplog.records if record.name == "qvlib"]
    assert len(told) == 1 and "none of the first 20 replies names an action" in told[0]


# -- what is declined ---------------------------------------------------------------------------

FILTERED = error(
    400,
    "The response was filtered due to the prompt triggering Azure OpenAI's content management "
    "policy. Please modify your prompt and retry.",
    code="content_filter",
    param="prompt",
)


@pytest.mark.parametrize("n_mode", ["auto", "each"])
def test_a_prompt_that_is_filtered_has_empty_replies(server, tmp_path, n_mode):
    cache, undisturbed = tmp_path / "replies.jsonl", agent_of(server, n_mode=n_mode)
    base = undisturbed.propose(requests())
    server.answer = lambda body: FILTERED if "test 2" in body["messages"][-1]["content"] else None
    server.seen = []
    agent = agent_of(server, cache=cache, n_mode=n_mode)
    answers = agent.propose(requests())
    assert [p.action for p in answers[2]] == [""] * 3 and agent.client.usage["declined"] == 3
    assert answers[:2] + answers[3:] == base[:2] + base[3:]
    assert agent.client.takes_n == (n_mode == "auto") and agent.client.usage["retries"] == 0
    assert agent_of(server, cache=cache, offline=True).propose(requests()) == answers


def test_a_server_that_filters_every_prompt_ends_the_run(server):
    server.answer = lambda body: FILTERED
    agent = agent_of(server)
    with pytest.raises(QvlibError, match="20 were declined by the server's filter or the model"):
        for seed in range(4):
            many = [
                Request(MAZE.reset(Task(f"t{seed}-{i}", f"task {seed}-{i}")), 5, (seed, f"{i}", ""))
                for i in range(8)
            ]
            agent.propose(many)
    assert len(server.seen) <= 8 * 3 + 16


def test_a_reply_that_is_declined_at_each_try_is_empty_and_faults_that_pass_do_not_count(server):
    server.always = lambda body: "null"
    agent = agent_of(server, retries=2)
    assert agent.propose(requests(n=1, count=1))[0][0].action == ""
    assert len({body["seed"] for body in server.seen}) == 3 and agent.client.usage["declined"] == 1
    turn = itertools.cycle(["500", "null", "null"])
    server.always = lambda body: next(turn)
    with pytest.raises(QvlibError, match=r"in 3 tries: null content .*\(x2\); HTTP 500"):
        agent_of(server, retries=2).propose(requests(n=1, count=1))


def test_a_prompt_that_is_filtered_again_and_again_is_no_reason_to_end(server):
    server.answer = lambda body: FILTERED
    agent = agent_of(server)
    for seed in range(10):
        agent.propose(requests(n=5, count=1, seed=seed))


# -- prompts ------------------------------------------------------------------------------------


def talk(steps: int) -> State:
    """An episode of so many steps with a page each."""
    seen = [Step(f"search[lamp {i}]", SENTENCE.format(i) * 6) for i in range(steps)]
    observation = seen[-1].observation if seen else "at start"
    return State(Task("t", "find a lamp"), observation, tuple(seen))


def remote(server, budget: int, **client):
    return remote_model(
        "api:shop-1",
        chat=lambda tokenizer: Chat(tokenizer, "Shop.", lambda task: "at start", budget=budget),
        base_url=server.base_url,
        key_variable="",
        first_wait=0.01,
        **client,
    )


def length(messages: list[dict]) -> int:
    return sum(len(message["content"].encode()) for message in messages)


def test_a_served_agent_keeps_to_prompt_tokens(server):
    whole = Chat(None, "Shop.", lambda task: "at start", budget=10**6).messages(talk(12))
    agent = remote(server, 500).agent(1.0, 0.9)
    agent.propose([Request(talk(k), 1, (0, "t", str(k))) for k in (0, 1, 12)])
    sent = sorted((body["messages"] for body in server.seen), key=length)
    assert length(whole) > 4000 and all(length(m) <= 500 * BYTES_A_TOKEN for m in sent)
    assert sent[-1][0] == whole[0] and sent[-1][-1] == whole[-1]  # the rules, what is seen now
    assert any("(left out)" in message["content"] for message in sent[-1])
    assert sent[0] == Chat(None, "Shop.", lambda task: "at start").messages(talk(0))


def test_a_server_whose_model_reads_less_is_asked_with_less(server, tmp_path):
    limit = 1200
    server.answer = lambda body: (
        error(400, "This model's maximum context length is 400 tokens.")
        if length(body["messages"]) > limit
        else None
    )
    cache = tmp_path / "replies.jsonl"
    lm = remote(server, 2048, cache=cache)
    asked = [Request(talk(k), 2, (0, "t", str(k))) for k in range(8)]
    answers = lm.agent(1.0, 0.9).propose(asked)
    assert all(p.action for row in answers for p in row) and lm.client.usage["shortened"] >= 3
    assert lm.client.takes_n
    again = remote(server, 2048, cache=cache, offline=True).agent(1.0, 0.9).propose(asked)
    assert [[p.action for p in row] for row in again] == [[p.action for p in r] for r in answers]


def test_a_prompt_that_cannot_be_cut_enough_ends(server):
    server.answer = lambda body: error(413, "Request too large")
    with pytest.raises(QvlibError, match="HTTP 413"):
        remote(server, 2048).agent(1.0, 0.9).propose([Request(talk(3), 2, (0, "t", ""))])
    assert len(server.seen) < 14


@pytest.mark.parametrize("thoughts", [False, True])
def test_replies_are_asked_to_stop_where_the_future_is_made_up(server, thoughts):
    lm = remote_model(
        "api:shop-1",
        chat=lambda tokenizer: Chat(tokenizer, "", lambda task: "at start", thoughts=thoughts),
        base_url=server.base_url,
        key_variable="",
    )
    lm.agent(1.0, 0.9).propose([Request(talk(0), 1, (0, "t", ""))])
    assert [body["stop"] for body in server.seen] == [["\nObservation:"]]


# -- waiting ------------------------------------------------------------------------------------


def test_a_server_that_asks_to_wait_a_minute_is_waited_for(server, monkeypatch, caplog):
    slept = []
    monkeypatch.setattr(api_client, "sleep_using_event", lambda event: slept.append)
    server.faults.append("429")
    server.headers = {"Retry-After": "65"}
    client = ApiClient("fake", server.base_url)
    client.complete(
        {"model": "fake", "messages": [{"role": "user", "content": "x"}]}, 1, lambda i: i
    )
    assert len(slept) == 1 and 65 <= slept[0] <= 66 and "asks to wait 65 s" in caplog.text


@pytest.mark.parametrize(
    "value",
    ["Fri, 31 Dec 99999 23:59:59 GMT", "9" * 400, "Fri, 31 Feb 2026 25:61:61 GMT", "\u0663", "1e9"],
)
def test_a_wait_that_is_none_is_bounded(server, value):
    assert 0 <= retry_after(None, value) <= 1e9
    assert math.isfinite(retry_after("9" * 400, None))


def test_a_wait_beyond_the_longest_ends_the_run_and_names_the_parameter(server):
    server.answer = lambda body: (
        429,
        {"Retry-After": "Fri, 31 Dec 99999 23:59:59 GMT"},
        [b'{"error": {"message": "slow down"}}'],
    )
    with pytest.raises(QvlibError, match=r"'slow down'.*raise api_longest_wait \(600 s\)"):
        agent_of(server).propose(requests(n=1, count=1))
    assert len(server.seen) == 1 and make({"api_longest_wait": 900.0})


def test_an_account_without_quota_is_not_asked_again(server):
    server.answer = lambda body: error(
        429, "You exceeded your current quota, please check your plan.", code="insufficient_quota"
    )
    with pytest.raises(QvlibError, match=r"HTTP 429 'You exceeded.*see to the account's balance"):
        agent_of(server, max_in_flight=1).propose(requests(n=1))
    assert len(server.seen) == 1


# -- time and size ------------------------------------------------------------------------------


def slowly(text: bytes, seconds: float):
    for byte in text:
        time.sleep(seconds)
        yield bytes([byte])


@pytest.mark.parametrize("status", [0, 200, 500])
def test_an_answer_that_comes_byte_by_byte_has_a_deadline(server, status):
    """Its head (0), its body, or the body of an error."""
    server.answer = lambda body: (status, {}, slowly(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 40, 0.05))
    started = time.monotonic()
    with pytest.raises(QvlibError, match=r"no whole answer within 0.3 s.*raise api_deadline"):
        agent_of(server, deadline=0.3, retries=0, timeout=1.0).propose(requests(n=1, count=1))
    assert time.monotonic() - started < 1.5


@pytest.mark.parametrize("status", [200, 429])
def test_an_endless_answer_is_not_read_to_its_end(server, status):
    server.answer = lambda body: (status, {}, itertools.repeat(b" " * 50_000))
    with pytest.raises(QvlibError, match=r"more than 1,000,000 bytes.*raise api_longest_answer"):
        agent_of(server, longest_answer=1_000_000, retries=0).propose(requests(n=1, count=1))


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_an_answer_that_unpacks_to_much_more_is_not_unpacked(server, encoding):
    packed = (gzip if encoding == "gzip" else zlib).compress(b"0" * 30_000_000)
    server.answer = lambda body: (200, {"Content-Encoding": encoding}, [packed])
    tracemalloc.start()
    try:
        with pytest.raises(QvlibError, match=r"more than 1,000,000 bytes"):
            agent_of(server, longest_answer=1_000_000, retries=0).propose(requests(n=1, count=1))
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_an_answer_that_is_packed_unasked_is_read(server):
    (_, headers, (content,)) = replied({"content": "Action: a"})
    server.answer = lambda body: (
        200,
        {**headers, "Content-Encoding": "gzip"},
        [gzip.compress(content)],
    )
    assert agent_of(server).propose(requests(n=1, count=1))[0][0].action == "a"
    for encoding, chunks in (("br", [content]), ("gzip", [content])):
        server.answer = lambda body, e=encoding, c=chunks: (200, {"Content-Encoding": e}, c)
        with pytest.raises(QvlibError, match="compression"):
            agent_of(server, retries=0).propose(requests(n=1, count=1))


# -- where requests go --------------------------------------------------------------------------


def test_prompts_do_not_follow_to_another_host(server):
    with FaultyServer() as other:
        there = other.base_url.replace("127.0.0.1", "localhost") + "/chat/completions"
        for status in (301, 307, 308):
            server.answer = lambda body, s=status: (s, {"Location": there}, [])
            with pytest.raises(QvlibError, match=r"redirects to 'localhost'.*api_base_url"):
                agent_of(server).propose(requests(n=1, count=1))
        port = other.base_url + "/chat/completions"
        server.answer = lambda body: (307, {"Location": port}, [])
        with pytest.raises(QvlibError, match=r"redirects to '127\.0\.0\.1'"):
            agent_of(server).propose(requests(n=1, count=1))
    assert not other.seen and len(server.seen) == 4


def test_a_redirect_on_the_same_host_is_followed(server):
    moved = deque_of((307, {"Location": "/v2/chat/completions"}, []))
    server.answer = lambda body: next(moved, None)
    assert agent_of(server).propose(requests(n=1, count=1))[0][0].action
    assert len(server.seen) == 2
    server.answer = lambda body: (308, {"Location": "/again"}, [])
    with pytest.raises(QvlibError, match="HTTP 308"):
        agent_of(server).propose(requests(n=1, count=1))


def deque_of(*answers):
    return iter(answers)


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_loopback_is_never_asked_by_a_proxy(server, monkeypatch, variable):
    monkeypatch.setenv(variable, "http://127.0.0.1:9")
    assert agent_of(server, retries=0).propose(requests(n=1, count=1))[0][0].action


@pytest.mark.parametrize("value", ["socks://127.0.0.1:9", "socks4://x", "ftp://x:1", "http://[::1"])
def test_a_proxy_that_cannot_be_used_is_named(monkeypatch, server, value):
    monkeypatch.setenv("ALL_PROXY", value)
    with pytest.raises(QvlibError, match=r"variable ALL_PROXY.*unset ALL_PROXY"):
        agent_of("http://qvlib.invalid/v1").propose(requests(n=1, count=1))
    assert agent_of(server).propose(requests(n=1, count=1))[0][0].action


def test_a_proxy_that_does_not_answer_is_named(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with pytest.raises(QvlibError, match="connection failed by the proxy of HTTP_PROXY"):
        agent_of("http://qvlib.invalid/v1", retries=0).propose(requests(n=1, count=1))


def test_what_loopback_is():
    for address in (
        "http://localhost:1/v1",
        "http://127.8.0.1",
        "http://[::1]:8000",
        "http://0.0.0.0:1",
        "http://a.localhost",
    ):
        assert is_loopback(address)
    for address in ("http://10.0.0.1", "http://localhost.example.com", "https://api.openai.com/v1"):
        assert not is_loopback(address)


# -- keys ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        f"http://localhost/v1#{KEY}",
        f"http://localhost/{KEY}/v1",
        f"http://localhost/v1/key={KEY}",
        "https://host.example/v1/%73k-fake-0123456789abcdef",
        "https://host.example/v1/Zk3vTq9LmXw27RbnYc5HdPfa",
    ],
)
def test_a_key_in_the_address_is_refused_and_not_shown(address):
    with pytest.raises(QvlibError, match=r"api_base_url.*put the key into the environment") as one:
        make({"api_base_url": address})
    with pytest.raises(QvlibError, match="api_base_url") as other:
        ApiClient("m", address)
    assert "0123" not in shown(one.value) + shown(other.value)


def test_a_key_that_is_known_is_refused_in_the_address(monkeypatch):
    monkeypatch.setenv("OTHER_API_KEY", "plain-words-as-a-key")
    assert wrong_base_url("http://localhost/plain-words-as-a-key/v1")
    monkeypatch.delenv("OTHER_API_KEY")
    assert not wrong_base_url("http://localhost/plain-words-as-a-key/v1")


@pytest.mark.parametrize(
    "address",
    [
        "https://api.openai.com/v1",
        "https://me.openai.azure.com/openai/deployments/gpt-4o-mini-2024-07-18",
        "https://gateway.ai.cloudflare.com/v1/0123456789abcdef0123456789abcdef/shop/openai",
        "https://router.huggingface.co/hf-inference/models/Qwen2-5-72B-Instruct-AWQ-v1/v1",
        "http://127.0.0.1:8000/v1",
    ],
)
def test_addresses_without_a_key_are_taken(address):
    assert not wrong_base_url(address)


@pytest.mark.parametrize("name", ["AKIAIOSFODNN7EXAMPLE", "SK0123456789ABCDEF", KEY, "gsk_A1b2"])
def test_a_key_in_the_place_of_the_name_of_its_variable_is_refused(name):
    with pytest.raises(QvlibError, match="never the key itself") as caught:
        make({"api_key_variable": name})
    assert name not in shown(caught.value)


def test_names_of_variables_are_taken():
    for name in ("OPENAI_API_KEY", "AZURE_OPENAI_KEY_EASTUS2", "KEY2", "MY_GPT4_TOKEN", ""):
        assert not wrong_key_variable(name)


@pytest.mark.parametrize(
    ("extra", "by"),
    [
        ({"temperature": 0}, "the parameter temperature"),
        ({"top_p": 0.5}, "the parameter top_p"),
        ({"n": 2}, "the parameter api_n"),
        ({"model": "other"}, "the parameter agent"),
        ({"messages": None}, "qvlib"),
        ({"stream": True}, "qvlib"),
    ],
)
def test_a_further_field_that_is_set_already_is_refused(extra, by):
    """The greedy arm would be sampled, or each arm at a temperature that no table names."""
    with pytest.raises(QvlibError, match=f"'api_extra': the field {next(iter(extra))} .* {by} "):
        make({"api_extra": extra})


def test_further_fields_that_a_server_does_not_take_are_left_out_by_null():
    extra = {"temperature": None, "top_p": None, "n": None, "stream": False, "top_k": 5}
    assert make({"api_extra": extra}).server.api_extra == extra


def test_a_key_among_the_further_fields_is_refused():
    for extra in ({"api_key": KEY}, {"headers": {"Authorization": f"Bearer {KEY}"}}, {"a": [KEY]}):
        with pytest.raises(QvlibError, match=r"api_extra.*holds a key") as caught:
            make({"api_extra": extra})
        assert KEY not in shown(caught.value)
    assert not list(keys_in({"top_k": 3, "stop": ["\n"], "model": "Qwen2.5-7B-Instruct-1M"}))
    assert not looks_like_key("sk-learn-based")


@pytest.mark.parametrize(
    "told",
    [
        KEY,
        f"{KEY[:12]} and then {KEY[12:]}",
        " ".join(KEY),
        "-".join(KEY.upper()),
        json.dumps({"key": [KEY[:9], KEY[9:]]}),
        "\n".join([KEY[:8], KEY[8:16], KEY[16:]]),
        KEY[::-1],
        "c2stZmFrZS0wMTIzNDU2Nzg5YWJjZGVm",
        KEY.encode().hex(),
        "".join(f"{piece} x " for piece in (KEY[i : i + 4] for i in range(0, len(KEY), 4))),
    ],
)
def test_an_error_that_spells_the_key_does_not_show_it(server, told):
    server.answer = lambda body: error(500, f"no luck with {told} today")
    with pytest.raises(QvlibError, match="HTTP 500") as caught:
        agent_of(server, retries=0).propose(requests(n=1, count=1))
    text, signs = "".join(filter(str.isalnum, str(caught.value).lower())), KEY.replace("-", "")
    pieces = [signs[i : i + 5] for i in range(len(signs) - 4)]
    assert not [piece for piece in pieces if piece in text or piece[::-1] in text]
    assert not [piece for piece in ("89ab", "c2stzmfr", KEY.encode().hex()) if piece in text]


def test_what_is_no_key_is_left_as_it_is():
    text = "The model `shop-1` does not exist, or you do not have access to it."
    assert redacted(text, KEY) == text and redacted(text, "") == text
    assert (
        redacted("no luck with Bearer sk-fake-0123456789abcdef", KEY) == "no luck with Bearer ***"
    )


# -- messages -----------------------------------------------------------------------------------


def test_a_message_is_one_line_of_less_than_300_signs(server):
    model = "m" * 500
    faults = itertools.cycle(["500", "broken", "429", "other", "503"])
    server.always = lambda body: next(faults)
    client = ApiClient(model, server.base_url, retries=4, first_wait=0.001, cache="none.jsonl")
    with pytest.raises(QvlibError, match="run again to go on") as caught:
        client.complete({"model": "x", "messages": [{"role": "user", "content": "x"}]}, 1, int)
    assert len(str(caught.value)) <= 300 and "\n" not in str(caught.value)
    server.answer = lambda body: error(500, "\x1b]0;owned\x07" + "long " * 1000)
    with pytest.raises(QvlibError) as caught:
        agent_of(server, retries=0).propose(requests(n=1, count=1))
    assert len(str(caught.value)) <= 300 and str(caught.value).isprintable()


def test_what_is_told_goes_to_the_log_of_the_package():
    assert api_client.log is logging.getLogger("qvlib")
