"""LATS and Reflexion: lessons in prompts, a chat model as judge and critic, exact costs."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from functools import partial
from types import SimpleNamespace

import pytest
from test_chat import ITEM, SHIRTS, TEMPLATES, after, told
from toy import Fixed, Maze, Paths, Scripted, Table, Told

from qvlib.agents.judging import Memory, judged, score_of
from qvlib.agents.lats import LATS, rollout
from qvlib.agents.prompted import (
    ACT,
    JUDGE,
    JUDGE_ROLE,
    JUDGE_TOKENS,
    LESSON_TOKENS,
    REFLECT,
    REFLECT_ROLE,
    Asked,
    Prompted,
    Reads,
    asking,
    writers,
)
from qvlib.agents.reflexion import REFLEXION, REFLEXION_Q, reflexion
from qvlib.core.episodes import best_episode, episode
from qvlib.core.lockstep import lockstep
from qvlib.core.mcts import SearchConfig, search
from qvlib.core.reranker import Reranked
from qvlib.core.types import Cost, Proposal, Request, Task
from qvlib.models.chat import Chat
from qvlib.models.writing import Question, talks, words_of, writer
from qvlib.pipeline.params import make

MAZE = Maze()
TASKS = MAZE.tasks("test")
OPENED = after(("search[red shirt]", SHIRTS), ("click[b012345678]", ITEM))


@dataclass
class Says:
    """Answers each request with what ``say`` makes of it, for five tokens; keeps the requests."""

    say: object
    asked: list[Request] = field(default_factory=list)

    def propose(self, requests):
        self.asked += requests
        return [
            [Proposal(self.say(r), cost=Cost(tokens=5, prompt_tokens=11))] * r.n for r in requests
        ]


def only(job, agent):
    return next(lockstep([job], agent, 1))


def small(agent=Scripted, **given):
    """A cast whose agent is no chat model."""
    lm = SimpleNamespace(style=lambda state: None)
    return SimpleNamespace(
        sampler=agent, model=lambda: lm, q_model=lambda: Told({}, 0.5), params=make(given)
    )


# -- who is asked, and what is told -----------------------------------------------------------


def test_each_part_answers_its_own_requests_in_their_order():
    parts = {part: Says(lambda r, part=part: f"{part} {r.key[2]}") for part in (ACT, JUDGE)}
    state = MAZE.reset(TASKS[0])
    requests = [
        Asked(state, 1, (0, "t", "0"), JUDGE),
        Request(state, 2, (0, "t", "1")),
        Asked(state, 1, (0, "t", "2")),
        Asked(state, 1, (0, "t", "3"), JUDGE),
    ]
    answers = [[p.action for p in row] for row in Prompted(parts).propose(requests)]
    assert answers == [["judge 0"], ["act 1", "act 1"], ["act 2"], ["judge 3"]]
    assert [len(parts[part].asked) for part in parts] == [2, 2]


def test_lessons_stand_behind_the_instruction_and_q_does_not_see_them():
    inner, q = Says(lambda r: "a"), Table({"a": 0.0})
    seen = []
    spy = SimpleNamespace(score=lambda states, rows: seen.extend(states) or q.score(states, rows))
    state = after(("search[red shirt]", SHIRTS))
    request = Asked(state, 1, (0, "t", "1"), lessons=("click less", "buy the red one"))
    Reranked(Reads(inner), spy, 3).propose([request])
    (asked,) = inner.asked
    assert type(asked) is Request and asked.n == 3 and asked.key == request.key
    told_task = asked.state.task
    assert told_task.instruction == (
        "find me a red cotton shirt\nLessons of earlier trials:\n- click less\n- buy the red one"
    )
    assert told_task.id == state.task.id and seen == [state]
    assert told_task.instruction in asked.state.observation  # the page repeats its own
    assert asked.state.history[0].observation == asked.state.observation
    Reads(inner).propose([Request(state, 1, (0, "t", "1"))])
    Reads(inner).propose([Asked(state, 1, (0, "t", "1"))])
    assert [r.state for r in inner.asked[1:]] == [state, state]


def test_a_chat_reads_lessons_with_its_task_once():
    lm, inner = told(), Says(lambda r: "a")
    Reads(inner).propose([Asked(OPENED, 1, (0, "t", "2"), lessons=("buy at once",))])
    text = lm.style(inner.asked[0].state).text
    assert text == lm.style(OPENED).text.replace(
        "Task: find me a red cotton shirt\n",
        "Task: find me a red cotton shirt\nLessons of earlier trials:\n- buy at once\n",
    )


def test_a_task_without_words_is_told_lessons_too():
    inner = Says(lambda r: "a")
    state = MAZE.step(MAZE.reset(Task("t", "")), "a")
    Reads(inner).propose([Asked(state, 1, (0, "t", "1"), lessons=("x",))])
    assert inner.asked[0].state.observation == "at a"
    assert inner.asked[0].state.task.instruction.endswith("- x")


@pytest.mark.parametrize(
    "reply, score",
    [
        ("On its way.\nScore: 7", 0.7),
        ("**Score:** 10", 1.0),
        ("Score: 3 at first, now score: 8/10", 0.8),
        ("the score is 4.", 0.4),
        ("Score: 0", 0.1),
        ("Score: 95", 1.0),
        ("all 9 steps are right", -1.0),
        ("", -1.0),
    ],
)
def test_the_score_of_a_reply(reply, score):
    assert score_of(reply) == score


# -- a chat model that writes -----------------------------------------------------------------


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_question_closes_the_conversation(template):
    lm = told(template, thoughts=False)
    chat = lm.style
    question = Question(
        chat.tokenizer, chat.instructions, chat.first, thoughts=True, role="Judge.", ask=str.upper
    )
    question = replace(question, ask=lambda state: f"What of {len(state.history)} steps?")
    messages = question.messages(OPENED)
    assert messages[0]["content"] == f"{chat.instructions}\nJudge."
    assert [m["role"] for m in messages] == ["system", *["user", "assistant"] * 2, "user"]
    assert messages[-1]["content"].endswith("Buy Now\n\nWhat of 2 steps?")
    assert messages[:-1] == [messages[0], *chat.messages(OPENED)[1:-1]]
    text = question(OPENED).text
    assert "Reply with" not in text and text.rstrip().endswith(
        question(OPENED).text.rpartition("What of 2 steps?")[2].rstrip()
    )
    for budget in (1, 20, 40):
        short = replace(question, budget=budget).messages(OPENED)
        assert short[-1]["content"].endswith("\n\nWhat of 2 steps?")


def test_what_is_written_is_one_line_of_words():
    assert words_of("<think>hm, 3</think> Try  the\nred [SEP] one.<|im_end|>") == (
        "Try the red one."
    )


def test_a_local_model_writes_by_key_alone_or_in_company():
    lm = told()
    agent = writer(lm, "Judge.", lambda state: "Well?", 12, 1.0, 0.9)
    requests = [
        Request(state, n, (0, "t", f"{k}"))
        for k, (state, n) in enumerate([(OPENED, 1), (after(), 2), (OPENED, 1)])
    ]
    rows = agent.propose(requests)
    assert rows == [agent.propose([r])[0] for r in requests]
    assert rows[0][0].action != rows[2][0].action  # other keys draw otherwise
    for row in rows:
        assert all(0 < p.cost.tokens <= 12 and p.cost.unparsable == 0 for p in row)
        assert row[0].cost.prompt_tokens > 20
        assert all(words_of(p.action) == p.action for p in row)
    assert max(p.cost.tokens for row in rows for p in row) > lm.max_action_tokens
    assert talks(lm)


# -- Reflexion --------------------------------------------------------------------------------


def test_without_a_critic_it_is_the_best_of_several_episodes():
    for task in TASKS:
        plain = only(best_episode(MAZE, task, 0, 3), Scripted())
        assert only(reflexion(MAZE, task, 0, 3, False), Prompted({ACT: Scripted()})) == plain
        once = only(episode(MAZE, task, 0), Scripted())
        assert only(reflexion(MAZE, task, 0, 1, True), Prompted({ACT: Scripted()})) == once | {
            "trials": [[once["env_steps"], once["reward"], once["tokens"] + once["prompt_tokens"]]]
        }


WORLD = Paths((("aa", 0.2), ("ab", 0.5), ("b", 0.1), ("bb", 0.0)), max_steps=2)
GO = WORLD.tasks("test")[0]


def heeding(request):
    """Does what the last lesson says."""
    lessons = re.findall(r"- go (\w+)", request.state.task.instruction)
    path = lessons[-1] if lessons else "aa"
    return path[len(request.state.history)]


def critic(paths):
    """Names the next path, one after the other."""
    names = iter(paths)
    return Says(lambda request: f"go {next(names)}")


def trial(paths, most, world=WORLD, act=heeding):
    acting, writes = Says(act), critic(paths)
    agent = Prompted({ACT: Reads(acting), REFLECT: Reads(writes)})
    return only(reflexion(world, GO, 0, most, True), agent), acting, writes


def test_lessons_are_heeded_and_the_best_trial_counts_at_the_cost_of_all():
    record, acting, writes = trial(["ab", "ba"], 3)
    assert (record["actions"], record["reward"], record["done"]) == (["a", "b"], 0.5, True)
    assert (record["env_steps"], record["proposals"]) == (5, 5)  # aa, ab, b: it ends at once
    assert (record["tokens"], record["prompt_tokens"]) == (7 * 5, 7 * 11)  # two lessons besides
    assert [len(writes.asked), len(acting.asked)] == [2, 5]
    assert record.keys() == {*only(episode(WORLD, GO, 0), Fixed(["a"])), "trials"}
    # Sixteen tokens a step, as many a lesson, which is paid before the trial that is told it.
    assert record["trials"] == [[2, 0.2, 2 * 16], [4, 0.5, 5 * 16], [5, 0.5, 7 * 16]]
    # Each lesson is about the end of its trial; the second was told the first.
    ends = [[step.action for step in r.state.history] for r in writes.asked]
    assert ends == [["a", "a"], ["a", "b"]]
    assert [r.state.reward for r in writes.asked] == [0.2, 0.5]
    assert writes.asked[0].state.task.instruction == "go"
    assert writes.asked[1].state.task.instruction.endswith("- go ab")
    keys = [r.key for r in (*acting.asked, *writes.asked)]
    assert len(set(keys)) == len(keys)


def test_a_success_ends_the_trials():
    world = Paths((("aa", 0.2), ("ab", 1.0)), max_steps=2)
    record, acting, writes = trial(["ab", "ba"], 5, world)
    assert record["reward"] == 1.0 and record["env_steps"] == 4
    assert len(writes.asked) == 1 and len(acting.asked) == 4


def test_the_last_three_lessons_are_told():
    _, acting, writes = trial(["ab", "ba", "ab", "ba", "ab"], 6)
    last = acting.asked[-1].state.task.instruction
    assert re.findall(r"- go (\w+)", last) == ["ab", "ba", "ab"]
    assert len(writes.asked) == 5


def test_an_episode_that_was_cut_off_is_reflected_on():
    world = Paths((("ab", 0.7),), max_steps=2)
    record, _, writes = trial(["ab"], 2, world)
    assert record["reward"] == 0.7 and not writes.asked[0].state.done


def test_the_small_agent_tries_again_without_lessons():
    params = {"reflexion_trials": 3}
    assert writers(small()) == {}
    player = REFLEXION.players(small(**params))["reflexion"]
    for task in TASKS:
        record = only(player.play(MAZE, task, 0), player.agent)
        assert record == only(best_episode(MAZE, task, 0, 3), Scripted())
    player = REFLEXION_Q.players(small(**params))["reflexion_q"]
    record = only(player.play(MAZE, TASKS[0], 0), player.agent)
    reranked = Reranked(Scripted(), Told({}, 0.5), 5)
    assert record == only(best_episode(MAZE, TASKS[0], 0, 3), reranked)
    assert record["proposals"] == 3 * 3 * 5


# -- LATS -------------------------------------------------------------------------------------


def test_a_rollout_follows_the_first_and_stops_at_the_first_end():
    world = Paths((("bb", 0.7), ("aab", 0.4), ("aba", 0.9)))
    root = search(world, GO, SearchConfig(), 0)
    assert next(root).n == 5
    leaf = SimpleNamespace(state=world.reset(GO))
    job = rollout(world, 2, 0.5)(leaf, (0, "t", "leaf"))
    found = only(job, Fixed(["a", "b"]))
    # "a" is first at the start and in "a"; in "aa" the first leads on and the second ends.
    assert found.end.world == "aab" and found.value == 0.4 * 0.5**3
    assert found.cost == Cost(proposals=6, tokens=6, prompt_tokens=15, env_steps=6)
    cut = only(rollout(world, 1, 1.0)(leaf, (0, "t", "leaf")), Fixed(["a"]))
    assert (cut.value, cut.end.world, cut.cost.env_steps) == (-0.5, "aaaa", 4)


def judging(scores, act=("a", "b"), lesson="mind it"):
    """An agent whose judge knows the score of each path."""
    judge = Says(lambda r: f"Score: {scores.get(r.state.world, 1)}")
    return Prompted({ACT: Fixed(act), JUDGE: judge, REFLECT: Says(lambda r: lesson)})


def test_the_child_that_is_judged_best_comes_first_and_judging_is_paid():
    world, memory = Paths((("c", 0.4), ("d", 1.0)), "abcd"), Memory()
    request = Request(world.reset(GO), 5, (0, "t", "search/"))
    agent = judging({"a": 3, "b": 9}, "abacd")

    def job():
        return (yield from judged(world, memory, request))

    ordered = only(job(), agent)
    assert [p.action for p in ordered] == ["d", "b", "c", "a", "a"]
    # Five draws and two judgements: an end counts its reward and needs none.
    assert sum(p.cost.tokens for p in ordered) == 5 + 2 * 5
    assert sum(p.cost.prompt_tokens for p in ordered) == 5 + 2 * 11
    assert [end.world for end in memory.failed.values()] == ["c"]
    keys = [r.key for part in agent.parts.values() for r in getattr(part, "asked", ())]
    assert len(set(keys)) == len(keys) == 2


def test_failures_that_differ_have_a_lesson_each_up_to_three():
    memory, world = Memory(), Paths(tuple((c, 0.1) for c in "abcd"), "abcd")
    start = world.reset(GO)
    for action in "aabcd":
        memory.note(world.step(start, action))
    memory.note(Paths((("a", 1.0),)).step(start, "a"))  # a success is none
    assert [end.world for end in memory.unlearnt()] == ["a", "b", "c"]
    goes_on = Paths((), "abcd")

    def job():
        request = Request(goes_on.reset(GO), 1, (0, "t", "search/"))
        first = yield from judged(goes_on, memory, request)
        return first, (yield from judged(goes_on, memory, replace(request, key=(0, "t", "x"))))

    agent = judging({}, "a", lesson="mind it")
    first, second = only(job(), agent)
    assert memory.lessons == ("mind it",) * 3 and memory.unlearnt() == []
    assert len(agent.parts[REFLECT].asked) == 3
    assert [r.lessons for r in agent.parts[REFLECT].asked] == [("mind it",) * k for k in range(3)]
    assert first[0].cost.tokens == 3 * 5 + 1 + 5 and second[0].cost.tokens == 1 + 5
    assert agent.parts[JUDGE].asked[0].lessons == ("mind it",) * 3


def lats(world, agent, iterations, n=2, **config):
    """As the arm plays it."""
    config = SearchConfig(iterations, n, **config)
    evaluate = rollout(world, n, config.discount)
    job = search(world, GO, config, 0, evaluate=evaluate)
    if isinstance(agent, Prompted):
        job = asking(job, partial(judged, world, Memory()))
    return only(job, agent)


def test_its_first_rollout_goes_where_the_judge_says():
    world = Paths((("aaa", 0.1), ("aab", 0.2), ("bba", 0.3), ("bab", 0.9)), max_steps=3)
    scores = {"a": 2, "b": 8, "ba": 9, "bb": 3}
    tree = lats(world, judging(scores, act=("a", "b")), 1)
    assert tree.root.best_reward == 0.9 and tree.best_actions == ("b", "a", "b")
    assert [child.action for child in tree.root.children] == ["b", "a"]
    # Two at the root, two behind b, two behind ba.
    assert tree.cost.env_steps == 6 and tree.cost.proposals == 6
    # Six draws of a token each; of six children five are no ends and are judged.
    assert tree.cost.tokens == 6 + 5 * 5
    unguided = only(search(world, GO, SearchConfig(1, 2), 0), Fixed(["a", "b"]))
    assert unguided.best_actions[0] == "a"


def test_the_q_model_guides_where_no_model_can_be_asked():
    world = Paths((("aaa", 0.1), ("bba", 0.3), ("bab", 0.9)), max_steps=3)
    q = Told({"a": -3.0, "b": 1.0, "ba": 0.2, "bb": 0.1, "bab": 2.0})
    params = make({"lats_iterations": 2, "expand_n": 2, "stop_at_success": False})
    lm = SimpleNamespace(style=None)
    cast = SimpleNamespace(
        sampler=lambda: Fixed(["a", "b"]), q_model=lambda: q, params=params, model=lambda: lm
    )
    player = LATS.players(cast)["lats"]
    record = only(player.play(world, GO, 0), player.agent)
    assert (record["actions"], record["reward"]) == (["b", "a", "b"], 0.9)
    tree = lats(world, Reranked(Fixed(["a", "b"]), q, 2), 2, discount=0.95)
    assert record["env_steps"] == tree.cost.env_steps
    assert record["proposals"] == tree.cost.proposals and record["tokens"] == tree.cost.tokens
    assert record.keys() == {*only(episode(WORLD, GO, 0), Fixed(["a"])), "rises"}


def test_every_step_that_is_counted_is_taken_and_no_other():
    """Of the tree and of rollouts; what the judge is shown is stepped once more, uncounted."""
    steps = []

    class Watched(Paths):
        def step(self, state, action):
            steps.append(action)
            return super().step(state, action)

    world = Watched((("aab", 0.4), ("bb", 0.6)))
    tree = lats(world, Reranked(Fixed(["a", "b"]), Told({}), 2), 5)
    assert len(steps) == tree.cost.env_steps > 10
    steps.clear()
    tree = lats(world, judging({}), 5)
    assert len(steps) == 2 * tree.cost.env_steps


# -- behind a server --------------------------------------------------------------------------

KNOWN = Paths(
    (("aa", 0.2), ("ab", 0.3), ("ba", 0.1), ("bb", 0.4), ("cc", 1.0), ("ac", 1.0), ("bc", 1.0)),
    "abc",
    max_steps=2,
)


def shopkeeper(body, rng) -> str:
    """Goes a or b until a lesson, which it writes itself, says c; judges b to be better than a."""
    system, task, *_ = (message["content"] for message in body["messages"])
    if JUDGE_ROLE in system:
        return f"Well begun.\nScore: {8 if body['messages'][2]['content'] == 'Action: b' else 2}"
    if REFLECT_ROLE in system:
        return "<think>a or b?</think>Neither was right.\nGo c."
    lesson = "Lessons of earlier trials:\n- Neither was right. Go c." in task
    return f"Action: {'c' if lesson else 'ab'[rng.integers(2)]}"


@pytest.fixture
def shop():
    pytest.importorskip("openai", reason="needs the package openai: pip install 'qvlib[api]'")
    from faulty_server import FaultyServer

    from qvlib.models.loading import remote_model

    with FaultyServer(reply=shopkeeper) as server:
        lm = remote_model(
            "api:shop-1",
            chat=lambda tokenizer: Chat(tokenizer, "Go.", lambda task: "at start"),
            max_action_tokens=7,
            extra={"top_k": 3},
            base_url=server.base_url,
            key_variable="",
        )
        params = make({"reflexion_trials": 4, "lats_iterations": 4, "expand_n": 2})
        yield (
            server,
            SimpleNamespace(
                model=lambda: lm,
                sampler=lambda: lm.agent(1.0, 0.9),
                q_model=lambda: Told({}),
                params=params,
            ),
        )


def played(arm, cast):
    ((name, player),) = arm.players(cast).items()
    assert name == arm.name
    return only(player.play(KNOWN, GO, 0), player.agent)


@pytest.mark.parametrize("arm, n", [(REFLEXION, 1), (REFLEXION_Q, 5)])
def test_a_served_model_learns_from_its_own_lesson(shop, arm, n):
    server, cast = shop
    record = played(arm, cast)
    assert (record["actions"], record["reward"]) == (["c", "c"], 1.0)
    assert (record["env_steps"], record["proposals"]) == (4, 4 * n)
    lessons = [body for body in server.seen if REFLECT_ROLE in body["messages"][0]["content"]]
    (asked,) = lessons
    assert "The trial ended with reward 0." in asked["messages"][-1]["content"]
    assert asked["max_tokens"] == LESSON_TOKENS and asked["top_k"] == 3
    assert asked.get("stop") is None and len(asked["messages"]) == 6
    assert_all_is_paid(server, record)


def test_a_served_model_judges_and_learns_within_a_search(shop):
    server, cast = shop
    record = played(LATS, cast)
    assert record["reward"] == 1.0 and record["actions"][-1] == "c"
    judged_first = next(b for b in server.seen if JUDGE_ROLE in b["messages"][0]["content"])
    assert judged_first["max_tokens"] == JUDGE_TOKENS
    assert judged_first["messages"][-1]["content"].endswith("\n\nJudge this trial.")
    assert any(REFLECT_ROLE in body["messages"][0]["content"] for body in server.seen)
    assert_all_is_paid(server, record)


def assert_all_is_paid(server, record):
    """Every request is in the record: it costs 11 tokens of a prompt, and 3 a choice."""
    assert record["prompt_tokens"] == 11 * len(server.seen)
    assert record["tokens"] == 3 * sum(body.get("n") or 1 for body in server.seen)
