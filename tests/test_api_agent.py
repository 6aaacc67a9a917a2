"""The agent over a chat server: what faults do to it, what the cache keeps, and a real server."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections import deque
from email.utils import formatdate
from pathlib import Path

import pytest
from faulty_server import FaultyServer
from serving import serving
from toy import Maze, small_lm

from qvlib.base.errors import QvlibError
from qvlib.core.filtering import Filtered
from qvlib.core.lockstep import lockstep
from qvlib.core.types import Request
from qvlib.models.api import ApiAgent
from qvlib.models.api_answers import Fault, read_answer, retry_after
from qvlib.models.api_cache import Reply, ReplyCache
from qvlib.models.api_client import ApiClient

pytest.importorskip("openai", reason="needs the openai package: pip install 'qvlib[api]'")

ROOT = Path(__file__).parents[1]
KEY = "sk-fake-0123456789abcdef"
MAZE = Maze()
PASSING = [
    "429",
    "500",
    "503",
    "408",
    "hang",
    "refuse",
    "cut",
    "broken",
    "empty",
    "null",
    "other",
    "echo",
]
SEEN = {
    "429": "HTTP 429 'state 429'",
    "500": "HTTP 500 'state 500'",
    "503": "HTTP 503",
    "408": "HTTP 408",
    "hang": "no answer within 0.5 s",
    "refuse": "connection failed",
    "cut": "connection failed",
    "broken": "no valid JSON",
    "empty": "empty choices",
    "other": "no chat completion but 'the model is loading'",
    "echo": r"HTTP 500 'no luck with Bearer \*\*\*'",
}


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture
def server():
    with FaultyServer() as running:
        yield running


def messages(state):
    return [
        {"role": "system", "content": "Reply with an action."},
        {"role": "user", "content": f"{state.task.instruction}: {state.observation}"},
    ]


def parse(text, state):
    return text.removeprefix("Action: ")


def agent_of(server, **options) -> ApiAgent:
    """An agent that is quick to try again."""
    mine = {k: options.pop(k) for k in list(options) if k in ApiAgent.__dataclass_fields__}
    url = server if isinstance(server, str) else server.base_url
    client = ApiClient("fake", url, **{"timeout": 5.0, "retries": 3, "first_wait": 0.01, **options})
    return ApiAgent(client, messages, parse, **mine)


def requests(n=3, count=4, seed=0):
    return [Request(MAZE.reset(t), n, (seed, t.id, "root")) for t in MAZE.tasks("test")[:count]]


def actions(answers):
    return [[p.action for p in row] for row in answers]


def lines(cache: Path):
    return [json.loads(line) for line in cache.read_text().splitlines()]


def shown(error: BaseException) -> str:
    return (
        "".join(traceback.format_exception(error))
        + repr(error)
        + repr(error.__context__)
        + repr(error.__cause__)
    )


# -- faults -----------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", PASSING)
def test_a_fault_that_passes_leaves_no_trace_in_the_result(server, fault):
    undisturbed = agent_of(server).propose(requests())
    agent = agent_of(server, timeout=1.0 if fault == "hang" else 5.0, max_in_flight=1)
    server.faults, server.seen = deque([fault]), []
    if fault == "null":  # what was refused is drawn again from another seed
        answers = agent.propose(requests())
        first, again = [body["seed"] for body in server.seen[:2]]
        assert first != again and actions(answers)[1:] == actions(undisturbed)[1:]
        server.faults, server.seen = deque(["null"]), []
        assert answers == agent_of(server, max_in_flight=1).propose(requests())
    else:
        assert agent.propose(requests()) == undisturbed
    assert agent.client.usage["retries"] == 1 and agent.client.usage["requests"] == 5


@pytest.mark.parametrize("fault", [fault for fault in PASSING if fault != "null"])
def test_a_fault_that_stays_ends_in_one_clear_error(server, fault, tmp_path):
    server.always = lambda body: fault if "test 2" in body["messages"][-1]["content"] else None
    agent = agent_of(
        server,
        timeout=0.5 if fault == "hang" else 5.0,
        retries=2,
        max_in_flight=1,
        cache=tmp_path / "replies.jsonl",
    )
    with pytest.raises(QvlibError, match=SEEN[fault]) as caught:
        agent.propose(requests())
    text = str(caught.value)
    assert (
        server.base_url in text
        and "'fake'" in text
        and "in 3 tries" in text
        and "run again to go on" in text
    )
    assert "\n" not in text and KEY not in shown(caught.value)
    kept = lines(tmp_path / "replies.jsonl")
    assert len(kept) == 6  # the two before it
    server.always, server.seen = lambda body: None, []
    healed = agent_of(server, cache=tmp_path / "replies.jsonl")
    assert actions(healed.propose(requests())) == actions(
        agent_of(server, max_in_flight=1).propose(requests())
    )
    assert lines(tmp_path / "replies.jsonl")[:6] == kept and healed.client.usage["requests"] == 2


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        ("400", "correct what it names"),
        ("401", "set the environment variable OPENAI_API_KEY"),
        ("403", "the key in OPENAI_API_KEY"),
        ("404", "correct the model, or api_base_url"),
        ("422", "correct what it names"),
        ("402", "balance"),
    ],
)
def test_what_cannot_pass_is_not_tried_again(server, status, remedy):
    server.always = lambda body: status
    agent = agent_of(server, n_mode="each", max_in_flight=1)
    with pytest.raises(QvlibError, match=f"HTTP {status}.*{remedy}") as caught:
        agent.propose(requests(n=1))
    assert len(server.seen) == 1 and agent.client.usage["retries"] == 0
    assert KEY not in shown(caught.value) and server.keys == {f"Bearer {KEY}"}
    # To a wrong key, servers quote parts of it.
    assert ("state" in str(caught.value)) == (status not in ("401", "403"))


def test_no_server(tmp_path):
    with socket.socket() as taken:  # bound, not listening: nobody else can come to listen there
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        what = (
            rf"{url}, model 'fake': no usable reply in 4 tries: connection failed.*start the server"
        )
        with pytest.raises(QvlibError, match=what):
            agent_of(url).propose(requests())


def test_an_error_ends_the_others_soon_but_keeps_what_was_in_flight(server, tmp_path):
    server.delay = 0.3
    server.always = lambda body: "404" if "test 0" in body["messages"][-1]["content"] else None
    agent = agent_of(server, max_in_flight=4, cache=tmp_path / "replies.jsonl")
    with pytest.raises(QvlibError, match="404"):
        agent.propose(requests(count=8))
    assert len(server.seen) < 8
    assert len(lines(tmp_path / "replies.jsonl")) == 3 * (len(server.seen) - 1) > 0


def test_an_error_wakes_those_that_wait_to_try_again(server):
    server.always = lambda body: "500" if "test 1" in body["messages"][-1]["content"] else "404"
    agent = agent_of(server, first_wait=30.0)
    server.delay = 0.1
    started = time.monotonic()
    with pytest.raises(QvlibError, match="404"):
        agent.propose(requests(count=2))
    assert time.monotonic() - started < 5


def test_retry_after_is_kept_to(server):
    server.faults, server.headers = deque(["429"]), {"Retry-After": "0.5"}
    agent = agent_of(server)
    started = time.monotonic()
    agent.propose(requests(count=1))
    assert time.monotonic() - started >= 0.5 and agent.client.usage["requests"] == 2
    server.faults, server.headers = deque(["429"]), {"Retry-After": "3600"}
    with pytest.raises(QvlibError, match=r"asks to wait 3600 s; .*raise api_longest_wait"):
        agent_of(server).propose(requests(count=1))


def test_retry_after_as_servers_write_it():
    assert retry_after(None, None) == retry_after(None, "soon") == retry_after(None, "-3") == 0
    assert retry_after(None, " 7 ") == 7 and retry_after("250", "7") == 0.25
    assert retry_after(None, formatdate(time.time() + 60, usegmt=True)) == pytest.approx(60, abs=2)
    assert retry_after(None, formatdate(time.time() - 60, usegmt=True)) == 0


# -- n draws ----------------------------------------------------------------------------------


def test_a_server_that_takes_n_is_paid_for_the_prompt_once(server):
    agent = agent_of(server)
    answers = agent.propose(requests(n=5))
    assert len(server.seen) == 4 and {body["n"] for body in server.seen} == {5}
    assert [p.cost.prompt_tokens for p in answers[0]] == [11, 0, 0, 0, 0] and [
        p.cost.tokens for p in answers[0]
    ] == [3] * 5
    assert (
        agent.client.usage["prompt_tokens"] == 44 and agent.client.usage["completion_tokens"] == 60
    )


def test_a_server_without_n_is_asked_draw_by_draw(server):
    each = agent_of(server, n_mode="each").propose(requests(n=5))
    assert [p.cost.prompt_tokens for p in each[0]] == [11] * 5 and not any(
        "n" in body for body in server.seen
    )
    for manner in ("ignores", "refuses"):
        server.n, server.seen = manner, []
        agent = agent_of(server, max_in_flight=1)
        assert agent.propose(requests(n=5)) == each
        asked = sum("n" in body for body in server.seen)
        assert asked == 4  # those planned before the first answer came
        agent.propose(requests(n=5, seed=1))
        assert sum("n" in body for body in server.seen) == asked
        assert len(server.seen) == (2 * 20 if manner == "ignores" else 4 + 2 * 20)


def test_a_refusal_among_choices_is_drawn_again_alone(server):
    whole = agent_of(server).propose(requests(n=4, count=1))
    server.null_choices, server.seen = (0, 2), []
    agent = agent_of(server)
    row = agent.propose(requests(n=4, count=1))[0]
    assert [row[i].action for i in (1, 3)] == [whole[0][i].action for i in (1, 3)]
    assert [body.get("n") for body in server.seen] == [4, None, None]
    assert (
        len({body["seed"] for body in server.seen}) == 2
    )  # the first draw's seed was that of the whole request
    assert sum(p.cost.prompt_tokens for p in row) == agent.client.usage["prompt_tokens"] == 33


def test_each_draw_has_a_seed_of_its_own(server):
    agent_of(server, n_mode="each").propose(requests(n=6) + requests(n=6, seed=1))
    seeds = [body["seed"] for body in server.seen]
    assert len(set(seeds)) == 48 and all(0 <= seed < 2**31 for seed in seeds)


@pytest.mark.parametrize("content", ['"\\ud83d done"', '"done \\ude00"'])
def test_half_a_sign_is_replaced(content):
    """Valid JSON, but nothing that could be sent again or written."""
    text = '{"choices": [{"message": {"content": ' + content + "}}]}"
    (reply,) = read_answer(text, 1, str).replies
    assert "done" in reply.text and "?" in reply.text and reply.text.encode()


def test_a_count_that_is_no_number_is_a_fault():
    for count in ("1e999", "-1", f"1{'0' * 400}"):
        with pytest.raises(Fault, match="no chat completion"):
            read_answer(f'{{"choices": [], "usage": {{"prompt_tokens": {count}}}}}', 1, str)


@pytest.mark.parametrize("n_mode", ["auto", "each"])
def test_answers_do_not_depend_on_the_batch_or_on_concurrency(server, n_mode):
    base = agent_of(server, n_mode=n_mode, max_in_flight=1).propose(requests(n=4))
    assert len({p.action for row in base for p in row}) > 2
    assert agent_of(server, n_mode=n_mode, max_in_flight=13).propose(requests(n=4)) == base
    alone = agent_of(server, n_mode=n_mode)
    assert [alone.propose([r])[0] for r in reversed(requests(n=4))] == base[::-1]
    assert [row[:2] for row in agent_of(server, n_mode="each").propose(requests(n=4))] == agent_of(
        server, n_mode="each"
    ).propose(requests(n=2))


def test_more_draws_of_a_state_go_on_from_those_that_are_there(server):
    agent = agent_of(server)
    two = agent.propose(requests(n=2))
    five = agent.propose(requests(n=5))
    assert [row[:2] for row in five] == two and [body["n"] for body in server.seen] == [2] * 4 + [
        3
    ] * 4
    assert agent.propose(requests(n=2)) == two and len(server.seen) == 8


def test_the_same_request_twice_in_a_batch_is_sent_once(server):
    for n_mode in ("auto", "each"):
        server.seen = []
        answers = agent_of(server, n_mode=n_mode).propose(
            requests(n=2, count=1) + requests(n=4, count=1)
        )
        assert answers[0] == answers[1][:2] and sum(body.get("n", 1) for body in server.seen) == 4


def test_greedy_is_one_draw_whoever_asks(server):
    agent = agent_of(server, temperature=0.0)
    answers = agent.propose(requests(n=5) + requests(n=5, seed=1))
    assert len(server.seen) == 4 and not any("n" in body for body in server.seen)
    assert len({p.action for p in answers[0]}) == 1 and answers[0] == answers[4]
    assert [p.cost.tokens for p in answers[0]] == [3, 0, 0, 0, 0] and [
        p.cost.prompt_tokens for p in answers[0]
    ] == [11, 0, 0, 0, 0]


# -- many at once -----------------------------------------------------------------------------


def test_no_more_requests_are_in_flight_than_allowed(server):
    server.delay = 0.05
    agent = agent_of(server, n_mode="each", max_in_flight=5)
    threads = [
        threading.Thread(target=agent.propose, args=(requests(n=4, seed=seed),)) for seed in (0, 1)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.peak == 5 and len(server.seen) == 32


def test_it_works_where_an_event_loop_runs_already(server):
    async def cell():
        return agent_of(server).propose(requests())

    assert actions(asyncio.run(cell())) == actions(agent_of(server).propose(requests()))


def test_episodes_are_the_same_at_any_width(server):
    def episode(task):
        state = MAZE.reset(task)
        while not state.done and state.depth < MAZE.max_steps:
            proposals = yield Request(state, 1, (0, task.id, str(state.depth)))
            state = MAZE.step(state, proposals[0].action)
        return task.id, state.world, [s.action for s in state.history]

    def play(width):
        agent = Filtered(agent_of(server), MAZE)
        return sorted(lockstep(map(episode, MAZE.tasks("test")), agent, width)), agent.agent.client

    played, client = play(1)
    assert played == play(8)[0] and len({world for _, world, _ in played}) > 4
    assert (
        not any("nonsense" in history for _, _, history in played)
        and client.usage["proposals"] > 24
    )  # some were redrawn


# -- the cache --------------------------------------------------------------------------------


def test_a_run_from_the_cache_needs_no_server_and_no_key(tmp_path, monkeypatch):
    cache = tmp_path / "deep" / "replies.jsonl"
    with FaultyServer() as server:
        first = agent_of(server, cache=cache)
        answers = first.propose(requests(n=5))
        url = server.base_url
    monkeypatch.delenv("OPENAI_API_KEY")
    content = cache.read_bytes()
    for offline in (False, True):
        again = agent_of(url, cache=cache, offline=offline)
        assert again.propose(requests(n=5)) == answers
        usage = again.client.usage
        assert usage["requests"] == usage["prompt_tokens"] == 0 and usage["cached"] == 20
        assert (
            usage["cached_tokens"]
            == first.client.usage["prompt_tokens"] + first.client.usage["completion_tokens"]
        )
    with pytest.raises(
        QvlibError,
        match=r"draw 5 of 0, test-0, root is needed, but api_offline is set and .*\.jsonl lacks it",
    ):
        again.propose(requests(n=6))
    assert cache.read_bytes() == content and KEY.encode() not in content


def test_a_run_from_the_cache_needs_no_openai_package(server, tmp_path):
    cache = tmp_path / "replies.jsonl"
    answers = actions(agent_of(server, cache=cache).propose(requests()))
    code = (
        "import sys; sys.modules['openai'] = None; sys.path.insert(0, 'tests')\n"
        "from test_api_agent import *\n"
        f"print(actions(agent_of({server.base_url!r}, cache={str(cache)!r}).propose(requests())))\n"
        f"agent_of({server.base_url!r}, cache={str(cache)!r}).propose(requests(n=4))"
    )
    # importorskip would skip the import of this file, so it is made to find some package.
    code = "import pytest; pytest.importorskip = lambda *a, **k: None\n" + code
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == str(answers)
    assert (
        "QvlibError: the openai package is not installed; `pip install 'qvlib[api]'`" in done.stderr
    )


def test_what_decides_a_reply_decides_its_place_in_the_cache(server, tmp_path):
    options = {"cache": tmp_path / "replies.jsonl"}
    agent_of(server, **options).propose(requests())
    for changed in (
        {"temperature": 0.5},
        {"top_p": 0.9},
        {"max_tokens": 5},
        {"stop": ("\n",)},
        {"extra": {"top_k": 3}},
    ):
        agent = agent_of(server, **options, **changed)
        agent.propose(requests())
        assert agent.client.usage["cached"] == 0, changed
    for indifferent in (
        {"timeout": 9.0},
        {"n_mode": "each"},
        {"max_in_flight": 2},
        {"price_prompt": 1.0},
    ):
        agent = agent_of(server, **options, **indifferent)
        agent.propose(requests())
        assert agent.client.usage["requests"] == 0, indifferent


def test_a_cache_of_an_older_version_is_read(server, tmp_path):
    """Its lines also tell a log-probability, and the names of its draws that none was asked for."""
    cache = tmp_path / "replies.jsonl"
    answers = agent_of(server, cache=cache).propose(requests())
    older = ({**line, "log_prob": None} for line in lines(cache))
    cache.write_text("".join(f"{json.dumps(line)}\n" for line in older))
    agent = agent_of(server, cache=cache, offline=True)
    assert agent.propose(requests()) == answers
    (draw,) = agent._draws(requests(n=1, count=1)[0])
    assert draw.id == "a9191efc1fedb2658bc42b0fcdc181a5"  # as every version has named it


def test_a_line_cut_by_a_kill_is_asked_for_again(server, tmp_path):
    cache = tmp_path / "replies.jsonl"
    answers = agent_of(server, n_mode="each", cache=cache).propose(requests(n=2, count=2))
    content = cache.read_bytes()
    start = content.rfind(b"\n", 0, -1) + 1
    for cut in (start, start + 1, (start + len(content)) // 2, len(content) - 2, len(content) - 1):
        cache.write_bytes(content[:cut])
        agent = agent_of(server, n_mode="each", cache=cache)
        assert agent.propose(requests(n=2, count=2)) == answers
        lacking = int(cut < len(content) - 1)  # only the line end was missing: nothing was lost
        assert (
            agent.client.usage["requests"] == lacking
            and len(ReplyCache(cache).get([x["key"] for x in lines(cache)])) == 4
        )
        if lacking:
            assert sorted(cache.read_bytes().splitlines()) == sorted(content.splitlines())


def test_a_damaged_line_is_named(tmp_path):
    cache = tmp_path / "replies.jsonl"
    ReplyCache(cache).keep({"x": Reply("a"), "y": Reply("b")})
    cache.write_bytes(cache.read_bytes().replace(b'"key": "y"', b'"kee": "y"'))
    with pytest.raises(QvlibError, match=r"replies.jsonl: line 2 is not a reply.*delete that line"):
        ReplyCache(cache).get(["x"])


def test_the_first_reply_written_counts_for_everyone(tmp_path):
    one, other = ReplyCache(tmp_path / "r.jsonl"), ReplyCache(tmp_path / "r.jsonl")
    one.get(["x"]), other.get(["x"])
    one.keep({"x": Reply("first", "stop", 7, 2, "m")})
    other.keep({"x": Reply("second"), "y": Reply("more", None)})
    for cache in (one, other, ReplyCache(tmp_path / "r.jsonl")):
        assert cache.get(["x", "y", "z"]) == {
            "x": Reply("first", "stop", 7, 2, "m"),
            "y": Reply("more", None),
        }
    assert len(lines(tmp_path / "r.jsonl")) == 2


def test_many_writers_of_the_same_draws_write_each_once(tmp_path):
    keys, start = [f"k{i}" for i in range(60)], threading.Barrier(4)

    def write(name):
        cache = ReplyCache(tmp_path / "r.jsonl")
        start.wait()
        for key in keys:
            cache.keep({key: Reply(name * 3000)})
        found[name] = cache.get(keys)

    found: dict[str, dict] = {}
    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [line["key"] for line in lines(tmp_path / "r.jsonl")] == keys
    assert (
        found["a"]
        == found["b"]
        == found["c"]
        == found["d"]
        == ReplyCache(tmp_path / "r.jsonl").get(keys)
    )


def test_a_cache_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        QvlibError, match=r"cannot be written.*put the cache into a writable folder"
    ):
        ReplyCache(tmp_path / "file" / "r.jsonl").keep({"x": Reply("a")})
    with pytest.raises(QvlibError, match="cannot be read"):
        ReplyCache(tmp_path).get(["x"])


def spawn(code: str) -> subprocess.Popen:
    # Where the tests themselves run in the background, Ctrl-C is ignored in all that they start.
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "sys.path.insert(0, 'tests')\n"
        f"from test_api_agent import *\n{code}"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def test_processes_share_a_cache(server, tmp_path):
    server.delay = 0.02
    cache = tmp_path / "replies.jsonl"
    agent = f"agent_of({server.base_url!r}, cache={str(cache)!r}, n_mode='each')"
    code = f"print(actions({agent}.propose(requests(n=6, count=8))))"
    both = [spawn(code), spawn(code)]
    told = [process.communicate(timeout=60)[0] for process in both]
    assert (
        told[0]
        == told[1]
        == f"{actions(agent_of(server, n_mode='each').propose(requests(n=6, count=8)))}\n"
    )
    assert len(lines(cache)) == len({line["key"] for line in lines(cache)}) == 48


def test_kill_9_while_writing_loses_nothing_finished(tmp_path):
    cache = tmp_path / "replies.jsonl"
    code = (
        f"kept = ReplyCache({str(cache)!r})\n"
        "for i in range(10**6):\n kept.keep({f'k{i}': Reply('x' * 5000)}); print(i, flush=True)"
    )
    process = spawn(code)
    told = -1
    for line in process.stdout:
        told = int(line)
        if told == 30:
            os.kill(process.pid, signal.SIGKILL)
    process.wait(10)
    kept = ReplyCache(cache)
    assert told >= 30 and len(kept.get([f"k{i}" for i in range(told + 1)])) == told + 1
    kept.keep({"after": Reply("z")})
    assert ReplyCache(cache).get(["after", "k0"]).keys() == {"after", "k0"}


def test_ctrl_c_keeps_what_is_finished_and_in_flight(server, tmp_path):
    server.delay = 0.3
    cache = tmp_path / "replies.jsonl"
    process = spawn(
        f"agent_of({server.base_url!r}, cache={str(cache)!r}, n_mode='each', max_in_flight=2)"
        ".propose(requests(n=6, count=8))"
    )
    end = time.monotonic() + 60
    while len(server.seen) < 5:
        assert process.poll() is None and time.monotonic() < end, "the process does not ask"
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == -signal.SIGINT
    assert 5 <= len(server.seen) < 12 and len(lines(cache)) == len(server.seen)


# -- counting ---------------------------------------------------------------------------------


def test_tokens_and_cost_are_counted(server):
    agent = agent_of(server, price_prompt=2.0, price_completion=8.0)
    answers = agent.propose(requests(n=5))
    usage = agent.client.usage
    assert (
        usage["prompt_tokens"] == 44
        and usage["completion_tokens"] == 60
        and usage["reused_prompt_tokens"] == 16
    )
    assert (
        usage["usd"] == pytest.approx((44 * 2.0 + 60 * 8.0) / 1e6)
        and usage["requests"] == 4
        and usage["seconds"] > 0
    )
    assert (
        sum(p.cost.prompt_tokens for row in answers for p in row) == 44
        and usage["unmetered"] == usage["cut_off"] == 0
    )
    assert "usd" not in agent_of(server).client.usage


def test_replicas_that_draw_the_same_show_in_the_count_of_distinct_candidates(server):
    server.words = tuple(f"word {i}" for i in range(10**6))
    agent = agent_of(server, n_mode="each")
    agent.propose(requests(n=5))
    assert agent.client.usage["proposals"] == agent.client.usage["distinct"] == 20
    # As servers do that start from a seed of their own.
    replicas = agent_of(server, n_mode="each", extra={"seed": 7})
    replicas.propose(requests(n=5))
    assert replicas.client.usage["proposals"] == 20 and replicas.client.usage["distinct"] == 4


def test_fields_of_the_request_can_be_added_and_left_out(server):
    agent = agent_of(
        server, stop=("\n",), extra={"max_tokens": None, "max_completion_tokens": 9, "seed": None}
    )
    agent.propose(requests(n=2, count=1))
    assert server.seen == [
        {
            "model": "fake",
            "messages": messages(requests()[0].state),
            "temperature": 1.0,
            "top_p": 1.0,
            "stop": ["\n"],
            "max_completion_tokens": 9,
            "n": 2,
        }
    ]


# -- the key ----------------------------------------------------------------------------------


def test_the_key_is_nowhere_to_be_seen(server, tmp_path, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    agent = agent_of(server, cache=tmp_path / "replies.jsonl", retries=1)
    agent.propose(requests())
    server.always = lambda body: "echo"
    with pytest.raises(QvlibError, match=r"Bearer \*\*\*") as caught:
        agent.propose(requests(seed=1))
    assert server.keys == {f"Bearer {KEY}"}
    out = capfd.readouterr()
    everything = [
        repr(agent),
        str(agent),
        repr(vars(agent.client)),
        shown(caught.value),
        caplog.text,
        out.out,
        out.err,
        (tmp_path / "replies.jsonl").read_text(),
    ]
    assert caplog.text and not [text for text in everything if KEY in text or KEY[:10] in text]


@pytest.mark.parametrize("broken", ["sk-fake 0123", "sk-fake\n0123", "sk-fäke"])
def test_a_key_that_no_header_can_hold_is_not_shown(server, monkeypatch, broken):
    monkeypatch.setenv("OPENAI_API_KEY", broken)
    with pytest.raises(
        QvlibError, match="variable OPENAI_API_KEY holds blanks or signs that no key has"
    ) as caught:
        agent_of(server).propose(requests())
    assert "sk-f" not in shown(caught.value) and not server.seen


def test_another_variable_or_no_key(server, monkeypatch):
    monkeypatch.setenv("MY_KEY", " other-key\n")
    agent_of(server, key_variable="MY_KEY").propose(requests(count=1))
    agent_of(server, key_variable="").propose(requests(count=1))
    monkeypatch.delenv("OPENAI_API_KEY")
    agent_of(server).propose(requests(count=1))
    assert server.keys == {"Bearer other-key", "Bearer none"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key_variable": KEY}, "not the name of an environment variable"),
        (
            {"base_url": f"http://me:{KEY}@localhost/v1"},
            "api_base_url: it holds a password, a key, a query",
        ),
        (
            {"base_url": f"http://localhost/v1?key={KEY}"},
            "api_base_url: it holds a password, a key, a query",
        ),
        ({"base_url": KEY}, "api_base_url: it holds a password, a key"),
        ({"base_url": "localhost:8000"}, "api_base_url: no web address"),
        ({"base_url": "http://[::1/v1"}, "no web address"),
        ({"base_url": "http://localhost:80O0/v1"}, "no web address"),
        ({"key_variable": "gsk_a1b2c3"}, "in capitals"),
        ({"n_mode": "all"}, "api_n 'all' is unknown"),
        ({"max_in_flight": 0}, "api_in_flight must be at least 1"),
    ],
)
def test_wrong_settings_are_named_at_once(options, message):
    with pytest.raises(QvlibError, match=message) as caught:
        ApiClient("fake", **options)
    assert KEY not in shown(caught.value)


# -- a real server ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """``transformers serve`` with a small random model; gives (base URL, model)."""
    folder = tmp_path_factory.mktemp("served") / "tiny"
    lm = small_lm("float32")
    lm.tokenizer.chat_template = "{% for m in messages %}<task> {{ m['content'] }}{% endfor %}<act>"
    lm.model.generation_config.do_sample = True
    lm.tokenizer.save_pretrained(folder)
    lm.model.save_pretrained(folder)
    with serving(folder) as base_url:
        yield base_url, str(folder)


def real_agent(real, **options) -> ApiAgent:
    url, model = real
    return ApiAgent(
        ApiClient(model, url, timeout=30.0, **options),
        messages,
        lambda text, _: text.strip(),
        max_tokens=6,
    )


@pytest.mark.slow
def test_a_real_server(real, tmp_path):
    agent = real_agent(real, cache=tmp_path / "replies.jsonl", max_in_flight=1)
    answers = agent.propose(requests(n=3, count=2))
    usage = agent.client.usage
    assert (
        [len(row) for row in answers] == [3, 3]
        and usage["distinct"] > 3
        and not agent.client.takes_n
    )
    assert usage["requests"] == 6 and usage["retries"] == usage["unmetered"] == 0
    assert all(
        p.cost.prompt_tokens > 5 and 1 <= p.cost.tokens <= 6 and p.log_prob is None
        for row in answers
        for p in row
    )
    assert usage["completion_tokens"] == sum(p.cost.tokens for row in answers for p in row)
    assert (
        real_agent(real, cache=tmp_path / "replies.jsonl", offline=True).propose(
            requests(n=3, count=2)
        )
        == answers
    )
    # It seeds the whole process, so its draws repeat only where requests come one at a time.
    assert (
        real_agent(real, max_in_flight=1, n_mode="each").propose(requests(n=3, count=2)) == answers
    )
    many = real_agent(real, max_in_flight=8).propose(requests(n=3, count=4))
    assert [len(row) for row in many] == [3] * 4


@pytest.mark.slow
def test_a_real_server_refuses_a_model_that_it_does_not_serve(real):
    with pytest.raises(
        QvlibError,
        match=re.escape(f"{real[0]}, model 'another': the request was refused: HTTP 400"),
    ):
        real_agent((real[0], "another"), n_mode="each").propose(requests(n=1, count=1))
