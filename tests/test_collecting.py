"""Options while collecting: what explores, which tasks come when, who judges, rounds of RFT."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from dataclasses import replace
from typing import ClassVar

import pandas as pd
import pytest
from test_chat import told
from toy import Fixed, Maze, Scripted, Table, small_lm

from qvlib import pipeline
from qvlib.agents.disagreement import Hopeful, is_drawn
from qvlib.agents.novelty import novel_select, page, pages_seen
from qvlib.agents.rft import with_sampled
from qvlib.agents.verdicts import Judging, Verdicts, judged_episode
from qvlib.base.errors import QvlibError
from qvlib.base.settings import Settings, setting
from qvlib.core.lockstep import lockstep
from qvlib.core.mcts import Node, SearchConfig, search, uct_select
from qvlib.core.trees import best_trajectory, tree_record
from qvlib.core.types import Cost, Proposal, Request, State, Step, Task
from qvlib.environments import WorldSettings
from qvlib.estimators import Card, Estimator, Fitted
from qvlib.models.verdicts import ASKED, ROLE, judge_of, verdict, without_end
from qvlib.pipeline.curriculum import choose
from qvlib.pipeline.params import make
from qvlib.report import numbers, one_search
from qvlib.report.numbers.episodes import COSTS
from qvlib.runs.stage import read_stage

TASK = Task("train-0", "go", "train-0")


# -- options decide nothing at their default ------------------------------------------------------


class PlainSettings(Settings):
    stage: ClassVar[str | None] = "trees"

    depth: int = setting(3, "how deep", ge=1)


class MoreSettings(PlainSettings):
    width: int = setting(0, "how wide; 0 = as before", option=True, ge=0)
    height: int = setting(0, "how high", ge=0)


def test_an_option_decides_from_its_default_on():
    assert PlainSettings().deciding("trees") == {"depth": 3}
    assert MoreSettings().deciding("trees") == {"depth": 3, "height": 0}
    assert MoreSettings(width=0, depth=3).deciding("trees") == {"depth": 3, "height": 0}
    assert MoreSettings(width=2).deciding("trees") == {"depth": 3, "width": 2, "height": 0}
    assert MoreSettings(width=2).deciding("pairs") == {}


OPTIONS = {
    "novelty_weight": 2.0,
    "disagreement_weight": 1.0,
    "curriculum": "easy_first",
    "curriculum_pool": 500,
    "evaluator": "model",
    "evaluator_model": "api:judge",
    "verdict_tokens": 64,
    "rft_rounds": 2,
}


def test_options_at_their_defaults_are_in_no_stage_and_change_what_they_are_for():
    base = make({"rft": True, "rounds": 2})
    for stage in base.stages():
        fields = {name for some in base.deciding(stage).values() for name in some}
        assert fields.isdisjoint(OPTIONS), stage
    trees = {"curriculum", "curriculum_pool", "verdict_tokens", "novelty_weight"}
    for name, value in OPTIONS.items():
        more = {"evaluator_model": "api:judge"} if name == "evaluator" else {}
        other = base.replace(**{name: value}, **more)
        first = base.round_before(), other.round_before()
        assert (base.digest("trees") != other.digest("trees")) is (name != "rft_rounds")
        assert base.digest("rft") != other.digest("rft"), name
        assert base.digest("agent") == other.digest("agent")
        if name in trees:
            assert first[0].digest("trees") != first[1].digest("trees")
    hopeful = base.replace(disagreement_weight=1.0)  # the first round has no critics, and is shared
    assert hopeful.round_before().digest("q_model") == base.round_before().digest("q_model")
    assert hopeful.digest("trees") != hopeful.replace(critics=5).digest("trees")
    assert "critics" not in hopeful.stages()
    made = [(params.search.rounds, stage) for params, stage in hopeful.every_stage()]
    assert (1, "critics") in made and (2, "critics") not in made


# -- exploring ------------------------------------------------------------------------------------


class Alleys(Maze):
    """Of ``names`` all but the last lead to dead ends that look alike; the last to the reward.

    A page repeats the instruction, as a shop's do.
    """

    names = ("a", "b", "c", "d", "e", "f", "out")

    def reset(self, task: Task) -> State:
        return State(task, f"{task.instruction}: start", admissible=self.names, world=())

    def step(self, state: State, action: str) -> State:
        world = (*state.world, action)
        out = set(world) == {self.names[-1]}
        done = len(world) == self.depth
        seen = f"{state.task.instruction}: {'corridor' if out else 'dead end'} {len(world)}"
        reward = float(done and out)
        history = (*state.history, Step(action, seen))
        return State(state.task, seen, history, self.names, reward, done, True, world)

    def accepts(self, state: State, action: str) -> bool | None:
        return action in self.names


def visit(node: Node, times: int = 1) -> None:
    for _ in range(times):
        above: Node | None = node
        while above is not None:
            above.visits += 1
            above = above.parent


def child_of(node: Node, world: Alleys, action: str) -> Node:
    made = Node(str(len(node.children)), world.step(node.state, action), node, action)
    node.children.append(made)
    return made


def test_a_page_that_was_seen_goes_first_no_more():
    world = Alleys(depth=3)
    root = Node("", world.reset(TASK))
    first, alike, out = (child_of(root, world, action) for action in ("a", "b", "out"))
    visit(first)
    assert uct_select(1.0)(root) is alike  # UCT: what was not visited, in its order
    assert novel_select(uct_select, 1.0, 1.0)(root) is out  # its page is not that of `first`
    visit(out, 4)
    # N = 1 of the dead end; `alike` has the value 0 of an unvisited node and counts as one visit.
    n, bonus = root.visits, 1 / math.sqrt(2)
    first.value_sum = out.value_sum = 0.5
    explored = math.sqrt(math.log(n))
    scores = {
        "a": 0.5 + explored + bonus,
        "b": 0.0 + explored + bonus,
        "out": 0.125 + math.sqrt(math.log(n) / 4) + 1 / math.sqrt(5),
    }
    assert novel_select(uct_select, 1.0, 1.0)(root) is first
    assert max(scores, key=scores.get) == "a"
    heard: dict[str, float] = {}

    def rule(exploration, score):
        def select(top):
            heard.update({c.action: score(c, top, exploration) for c in top.children})
            return top

        return select

    novel_select(rule, 1.0, 1.0)(root)
    assert heard == pytest.approx(scores)
    novel_select(rule, 1.0, 1.0, {": dead end 1": 8})(root)  # eight more, in earlier rounds
    assert heard["a"] == pytest.approx(0.5 + explored + 1 / math.sqrt(1 + 9))


def test_without_a_weight_and_pages_all_new_it_is_uct():
    maze, config = Maze(seed=4, levels=10), SearchConfig(60, 6, stop_at_success=False)
    plain, novel = (
        next(lockstep([search(maze, TASK, config, 0, select=select)], Scripted(), 1))
        for select in (uct_select(1.0), novel_select(uct_select, 1.0, 0.0))
    )
    assert tree_record(plain) == tree_record(novel)


def test_novelty_leaves_the_dead_end_sooner_and_no_order_of_tasks_matters():
    world = Alleys(depth=3, max_steps=3)
    tasks = world.tasks("train")[:3]
    agent = Fixed(Alleys.names)
    config = SearchConfig(500, len(Alleys.names))

    def grown(rule, tasks, width):
        jobs = (search(world, task, config, 0, select=rule) for task in tasks)
        return {tree.task.id: tree_record(tree) for tree in lockstep(jobs, agent, width)}

    needed = [grown(uct_select(math.sqrt(2)), tasks, 4)]
    novel = novel_select(uct_select, math.sqrt(2), 1.0)
    needed.append(grown(novel, tasks, 4))
    plain, new = (sum(tree["iterations"] for tree in trees.values()) for trees in needed)
    assert new < 0.6 * plain
    assert all(tree["nodes"][0]["best_reward"] == 1 for tree in needed[1].values())  # it is found
    assert grown(novel, tasks[::-1], 1) == needed[1]


def test_pages_of_earlier_trees_are_counted_without_their_instruction():
    world = Alleys(depth=2, max_steps=2)
    tasks = world.tasks("train")[:2]
    config = SearchConfig(8, len(Alleys.names), stop_at_success=False)
    jobs = [search(world, task, config, 0) for task in tasks]
    trees = [tree_record(tree) for tree in lockstep(jobs, Fixed(Alleys.names), 2)]
    seen = pages_seen(trees)
    assert set(seen) == {": start", ": dead end 1", ": corridor 1"}  # ends are no pages
    of_dead_ends = [
        node["visits"]
        for tree in trees
        for node in tree["nodes"]
        if not node["terminal"] and "dead end" in node["observation"]
    ]
    assert seen[": dead end 1"] == sum(of_dead_ends) > 0
    assert seen[": start"] == sum(tree["nodes"][0]["visits"] for tree in trees)
    assert page("buy tea: shop", "buy tea") == ": shop"


def test_hope_is_where_critics_disagree():
    state = Maze().reset(TASK)
    q = Table({"a": 1.0, "b": 0.0, "c": 0.5})
    critics = [Table({"a": 1.0, "b": 3.0, "c": 2.0}), Table({"a": 1.0, "b": -1.0, "c": 0.0})]
    # Centred: -1, 1, 0 and 1, -1, 0; so the standard deviations are 1, 1, 0.
    assert Hopeful(q, critics, 2.0).score([state], [["a", "b", "c"]]) == [[3.0, 2.0, 0.5]]
    assert Hopeful(q, critics, 0.0).score([state], [["a", "b", "c"]]) == [[1.0, 0.0, 0.5]]
    moved = [critics[0], Table({name: value + 7 for name, value in critics[1].q.items()})]
    assert Hopeful(q, moved, 2.0).score([state], [["a", "b", "c"]]) == [[3.0, 2.0, 0.5]]
    assert Hopeful(q, critics, 2.0).score([state] * 2, [["b"], []]) == [[0.0], []]


def test_a_critic_is_drawn_half_of_the_tasks_each_by_a_coin_of_its_own():
    names = [f"t{i}" for i in range(400)]
    drawn = [{name for name in names if is_drawn(name, 0, critic)} for critic in range(3)]
    assert all(160 < len(tasks) < 240 for tasks in drawn)
    assert 70 < len(drawn[0] & drawn[1]) < 130
    assert drawn[0] == {name for name in reversed(names) if is_drawn(name, 0, 0)}


# -- a world, a model and an estimator that need no training ---------------------------------------


class Halls(Maze):
    """Two choices: `a` twice earns 1, else a quarter. The demonstrator knows even tasks."""

    def tasks(self, split):
        return [Task(f"{split}-{i:02d}", f"walk {i}", f"{split}-{i}", i) for i in range(30)]

    def reward(self, task, world):
        return 1.0 if set(world) == {"a"} else 0.25

    def demonstrator(self):
        return Guide()


class Silent(Halls):
    """The same world, which gives no reward."""

    def reward(self, task, world):
        return 0.0


class Guide:
    def propose(self, requests):
        return [[Proposal("ab"[r.state.task.goal % 2])] * r.n for r in requests]


def halls(settings: WorldSettings) -> Halls:
    return Halls(depth=2, choices=("a", "b"), max_steps=settings.max_steps)


def silent(settings: WorldSettings) -> Silent:
    return Silent(depth=2, choices=("a", "b"), max_steps=settings.max_steps)


class MeansSettings(Settings):
    stage: ClassVar[str | None] = "q_model"


class Means:
    def __init__(self, values):
        self.values = values

    def score(self, states, actions):
        return [[self.values.get(action, 0.0) for action in row] for row in actions]


def fit(problem, settings):
    values = defaultdict(list)
    tasks = set()
    for tree in problem.trees():
        tasks.add(tree["task"])
        for node in tree["nodes"]:
            if node["visits"] and node["action"]:
                values[node["action"]].append(node["value"])
    means = {name: sum(row) / len(row) for name, row in values.items()}
    facts = {"pairs": len(problem.train), "held_out_pairs": 0, "held_out_accuracy": None}
    facts |= {"dropped_pairs": 0, "dropped_held_out_pairs": 0, "tasks": sorted(tasks)}

    def save(folder):
        folder.mkdir()
        (folder / "means.json").write_text(json.dumps(means, sort_keys=True))

    card = Card("json", ("means",), "The mean value of an action.", "means")
    return Fitted(save, [{"step": 0, "split": "train"}], facts, card)


def load(folder, reference, settings, open_model):
    return Means(json.loads((folder / "means.json").read_text()))


MEANS = Estimator("means", MeansSettings, fit, load)
SMALL = {
    "environment": f"{__name__}:halls",
    "estimator": f"{__name__}:MEANS",
    "demonstrations": 1,
    "other_demonstrations": 0,
    "listed_actions": True,
    "temperature": 5.0,  # the random model has opinions
    "train_tasks": 4,
    "iterations": 12,
    "expand_n": 2,
    "stop_at_success": False,
    "min_margin": 0.0,
    "heldout_share": 0.0,
    "test_tasks": 2,
    "search_iterations": 2,
    "control_shuffles": 1,
    "processes": 1,
    "dtype": "float64",
    "wandb_mode": "disabled",
    "bootstrap": 100,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small random model, which draws from the listed actions alone."""
    lm, made = small_lm("float32"), tmp_path_factory.mktemp("given") / "lm"
    lm.model.save_pretrained(made)
    lm.tokenizer.save_pretrained(made)
    return str(made)


@pytest.fixture
def params(folder, tmp_path):
    made = make({**SMALL, "agent": folder, "runs_dir": str(tmp_path / "runs")})
    pipeline.train_agents(made)
    return made


def drawn(tree) -> list[tuple]:
    """What a tree has drawn and found, without log-probabilities, whose last digits may differ."""
    return [(node["node"], node["action"], node["visits"], node["value"]) for node in tree["nodes"]]


def trees_of(params) -> dict[str, dict]:
    return {tree["task"]: tree for tree in read_stage(params, "trees").records("trees")}


def test_critics_guide_the_second_round_alone(params):
    plain = params.replace(rounds=2)
    hopeful = plain.replace(disagreement_weight=50.0)
    for each in (plain, hopeful):
        pipeline.collect(each)
    first = plain.round_before()
    critics = read_stage(hopeful.round_before(), "critics").facts["critics"]
    assert len(critics) == 3
    for number, facts in enumerate(critics):
        drawn = [task for task in sorted(trees_of(first)) if is_drawn(task, 0, number)]
        assert facts["tasks"] == drawn and 0 < facts["pairs"] <= 3 * len(drawn)
    assert trees_of(plain) != trees_of(hopeful)
    assert set(trees_of(plain)) == set(trees_of(hopeful))
    # Of other critics it is another search; the first round, its pairs and its Q model are shared.
    seven = hopeful.replace(critics=7)
    assert seven.digest("trees") != hopeful.digest("trees")
    assert seven.round_before().digest("q_model") == first.digest("q_model")


def test_novelty_of_the_second_round_remembers_the_first(params):
    both = params.replace(rounds=2, uct="novelty")
    pipeline.collect(both)
    context = pipeline.Context(both)
    seen = pipeline.trees.seen(context)
    assert seen == pages_seen(trees_of(both.round_before()).values()) and seen["at start"] > 0
    tree = next(iter(trees_of(both).values()))  # a notebook that searches a task again has it too
    task = next(task for task in context.environment.tasks("train") if task.id == tree["task"])
    assert drawn(one_search.again(context, task)[0]) == drawn(tree)
    assert pipeline.trees.seen(pipeline.Context(both.round_before())) == {}
    assert pipeline.trees.seen(pipeline.Context(params.replace(rounds=2))) == {}


# -- a curriculum ---------------------------------------------------------------------------------


def test_the_easiest_or_the_hardest_are_chosen_the_first_among_equals():
    rewards = [0.5, 1.0, 0.0, 1.0, 0.5, 0.0]
    assert choose(rewards, 3, easy_first=True) == [0, 1, 3]
    assert choose(rewards, 3, easy_first=False) == [0, 2, 5]
    assert choose(rewards, 9, easy_first=True) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(("curriculum", "parity"), [("easy_first", 0), ("hard_first", 1)])
def test_rounds_take_their_tasks_by_how_hard_they_are(params, curriculum, parity):
    both = params.replace(rounds=2, curriculum=curriculum, curriculum_pool=10)
    pipeline.collect(both)
    first, second = trees_of(both.round_before()), trees_of(both)
    # The pool is the last ten tasks, 20 to 29; the demonstrator earns 1 on even ones.
    assert sorted(first) == [f"train-{i}" for i in range(20 + parity, 28 + parity, 2)]
    table = read_stage(both.round_before(), "trees").table("ranked").set_index("task")
    assert len(table) == 10 and set(table.index[table["searched"]]) == set(first)
    assert table["reward"].tolist() == [1.0, 0.25] * 5
    # In the second round who searches is ranked, on what is left.
    later = read_stage(both, "trees").table("ranked").set_index("task")
    assert set(later.index) == {f"train-{i}" for i in range(20, 30)} - set(first)
    order = later["reward"].sort_values(ascending=curriculum == "hard_first", kind="stable")
    assert set(second) == set(order.index[:4]) and not set(second) & set(first)
    uses = numbers.uses_table(pipeline.context_of(both)).set_index("used for")
    assert uses.loc["search", "tasks"] == 8
    # The same in another order of work, and with the ranking found again.
    again = both.replace(batch_size=1, runs_dir=params.run.runs_dir + "-again")
    pipeline.train_agents(again)
    pipeline.collect(again)
    found = trees_of(again)
    assert {task: drawn(tree) for task, tree in found.items()} == {
        task: drawn(tree) for task, tree in second.items()
    }


def test_a_pool_that_is_too_small_is_told():
    with pytest.raises(QvlibError, match="'curriculum_pool': 7 tasks are fewer than rounds"):
        make({"curriculum": "easy_first", "curriculum_pool": 7, "train_tasks": 4, "rounds": 2})
    params = make({**SMALL, "curriculum": "easy_first", "curriculum_pool": 300})
    with pytest.raises(QvlibError, match=r"demonstrations \+ curriculum_pool = 301, but the train"):
        pipeline.data.uses(params, halls(params.world))
    assert make({"curriculum": "hard_first", "train_tasks": 5}).pool == 20
    assert make({"train_tasks": 5}).pool == 0


# -- verdicts -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        ("0.7", 0.7),
        (" Verdict: 1", 1.0),
        ("Verdict: **0.25**. All but the price.", 0.25),
        ("<think>2 of 3 hold</think>\n.5", 0.5),
        ("0", 0.0),
        ("1.0\nObservation: 3", 1.0),
        ("7", None),
        ("3/10", None),
        ("80%", None),
        ("1 out of 3", None),
        ("-0.5", None),
        ("yes", None),
        ("", None),
    ],
)
def test_a_verdict_is_the_first_number_between_0_and_1(reply, value):
    assert verdict(reply) == value


class Strict:
    """Judges by the last action: `a` is 1, `b` a half, `c` nothing it can put into a number."""

    def __init__(self):
        self.asked = []

    def propose(self, requests):
        self.asked += [request.state for request in requests]
        said = {"a": "1", "b": "0.5", "c": "well"}
        cost = Cost(tokens=3, prompt_tokens=11)
        return [[Proposal(said[r.state.history[-1].action], cost=cost)] * r.n for r in requests]


def test_a_search_knows_no_reward_but_the_verdicts():
    world, judge, counted = Maze(depth=2, levels=1), Strict(), Verdicts()
    config = SearchConfig(40, 6, stop_at_success=False)
    agent = Judging(Scripted(), judge)
    tree = next(lockstep([search(world, TASK, config, 0, judge=counted)], agent, 1))
    ends = [node for node in tree.root.walk() if node.state.done]
    worth = {"a": 1.0, "b": 0.5, "c": 0.0}
    assert ends and all(node.state.reward == worth[node.action] for node in ends)
    assert all(node.value == worth[node.action] for node in ends if node.visits)
    assert tree.root.best_reward == 1.0 and tree.best_actions[-1] == "a"
    assert best_trajectory(tree_record(tree))[0] == 1.0
    record = counted.record()
    assert record["verdicts"] == len(judge.asked) and all(state.done for state in judge.asked)
    unknown = sum(state.history[-1].action == "c" for state in judge.asked)
    assert record["verdicts_unparsable"] == record["verdicts_agree"] == unknown > 0
    assert record["verdict_tokens"] == 3 * len(judge.asked)
    assert tree.cost.tokens == 2 * tree.cost.proposals  # the agent's alone
    plain = next(lockstep([search(world, TASK, config, 0)], Scripted(), 1))
    assert plain.root.best_reward == 0.0


def test_verdicts_go_out_with_what_others_ask():
    world, judge = Maze(depth=2), Strict()
    tasks = world.tasks("train")
    jobs = [judged_episode(world, task, 0, Verdicts(), trial=1) for task in tasks]
    agent = Judging(Scripted(("a", "b")), judge)
    records = list(lockstep(jobs, agent, 8))
    assert len(agent.agent.calls) == 2 and len(judge.asked) == len(tasks)
    assert {r["reward"] for r in records} <= {0.5, 1.0} and all(r["verdicts"] == 1 for r in records)
    plain = [judged_episode(world, task, 0, None, trial=1) for task in tasks]
    assert all("verdicts" not in r for r in lockstep(plain, Scripted(("a", "b")), 8))


def ended() -> State:
    """The end of an episode whose page tells the reward, as a shop's does."""
    world = Maze(depth=2)
    state = world.step(world.step(world.reset(TASK), "a"), "b")
    last = replace(state.history[-1], observation="Your score: 0.123")
    return replace(state, observation=last.observation, history=(*state.history[:-1], last))


def test_a_judge_reads_all_but_the_page_of_the_end():
    judge = judge_of(told("chatml"), "some/model", 8)
    text = judge.writer.lm.style(without_end(ended())).text
    for part in (ROLE, "Task: go", "Action: a", "at a", "Action: b", "(not shown)", ASKED):
        assert part in text
    assert "0.123" not in text
    (answers,) = judge.propose([Request(ended(), 1, (0, "t", ""))])
    assert answers == judge.propose([Request(ended(), 1, (1, "u", "x"))])[0]  # it is greedy
    with pytest.raises(QvlibError, match=r"some/model is no chat model and can judge nothing"):
        judge_of(small_lm(), "some/model", 8)


def test_the_small_agent_is_refused_as_a_judge():
    with pytest.raises(QvlibError, match="'evaluator': the small agent is no chat model and can"):
        make({"evaluator": "model"})
    for judge in ("api:gpt", "smollm2"):
        assert make({"evaluator": "model", "evaluator_model": judge}).judge == judge
    assert make({"evaluator": "model", "agent": "api:gpt"}).judge == "api:gpt"
    assert make({"evaluator_model": "api:gpt"}).judge == ""


def test_a_served_model_gives_the_rewards_of_a_world_without_any(params, tmp_path):
    pytest.importorskip("openai", reason="needs the package openai: pip install 'qvlib[api]'")
    from faulty_server import FaultyServer

    def reply(body, rng) -> str:
        acted = [m["content"] for m in body["messages"] if m["role"] == "assistant"]
        if "Action: a" in acted[0]:
            return "0.9"
        return "hard to say" if "Action: b" in acted[1] else "0.1"

    with FaultyServer(reply=reply) as server:
        judged = params.replace(
            environment=f"{__name__}:silent",
            evaluator="model",
            evaluator_model="api:judge-1",
            api_base_url=server.base_url,
            api_key_variable="",
            api_cache=str(tmp_path / "replies.jsonl"),
            api_price_completion=2.0,
            rft=True,
        )
        pipeline.train_agents(judged)
        pipeline.collect(judged)
        asked = len(server.seen)
    assert {body["temperature"] for body in server.seen} == {0.0}
    assert {body["model"] for body in server.seen} == {"judge-1"}
    chats = {json.dumps(body["messages"]) for body in server.seen}
    assert asked == len(chats) and not any("(at " in chat for chat in chats)  # each end once
    worth = {("a", "a"): 0.9, ("a", "b"): 0.9, ("b", "a"): 0.1, ("b", "b"): 0.0}
    facts, trees = read_stage(judged, "trees").facts, trees_of(judged)
    ends = 0
    for tree in trees.values():
        actions = {node["node"]: node["action"] for node in tree["nodes"]}
        for node in tree["nodes"]:
            if node["terminal"]:
                ends += 1
                assert node["reward"] == worth[actions[node["parent"]], node["action"]]
    assert ends and facts["verdicts"] == sum(tree["verdicts"] for tree in trees.values()) >= ends
    assert 0 < facts["verdicts_unparsable"] < facts["verdicts"]
    # Half of what parses is a success by the verdict and none by the world.
    assert 0 < facts["verdicts_agree"] < facts["verdicts"]
    # What it cost is the judge's, not the agent's; and the pairs prefer what was judged better.
    pipeline.make_pairs(judged)
    at_root = [pair for pair in pipeline.load_pairs(judged) if not pair.path]
    assert at_root and {(pair.chosen, pair.rejected) for pair in at_root} == {("a", "b")}
    costs = numbers.cost(judged, pd.DataFrame(columns=["arm", *COSTS]))  # nothing is played
    written = sum(tree["verdict_tokens"] for tree in trees.values())
    assert costs["usd"] == pytest.approx(2.0 * written / 1e6)


# -- rounds of RFT --------------------------------------------------------------------------------


def test_what_is_sampled_is_filtered_and_learnt_once():
    best = [{"task": "t", "group": "g", "reward": 1.0, "actions": ["a", "b"]}]

    def sampled(reward, actions, done=True):
        more = {"done": done, "tokens": 3}
        return {"task": "t", "group": "g", "reward": reward, "actions": actions, **more}

    records = [
        sampled(1.0, ["a", "b"]),
        sampled(0.5, ["c"]),
        sampled(0.25, ["d"]),
        sampled(0.0, ["e"], done=False),
    ]
    kept = with_sampled(best, records, 0.5)
    assert kept == [*best, {"task": "t", "group": "g", "reward": 0.5, "actions": ["c"]}]
    assert [r["actions"] for r in with_sampled(best, records, 0.0)] == [["a", "b"], ["c"], ["d"]]


@pytest.mark.slow
def test_rounds_of_rft_are_agent_evol(params):
    tuning = {"rft_lr": 5e-3, "rft_epochs": 6, "warm_rank": 0, "warm_batch": 2}
    evolved = params.replace(
        rft=True, rft_rounds=2, rft_min_reward=0.5, train_tasks=8, iterations=16, **tuning
    )
    names = [arm.name for arm in evolved.arms()]
    assert "agent_evol" in names and "rft" not in names
    assert "AgentEvol" in evolved.arm("agent_evol").says
    once = [arm.name for arm in evolved.replace(rft_rounds=1).arms()]
    assert "rft" in once and "agent_evol" not in once
    pipeline.train_agents(evolved)  # whose digest knows the rank of a warm start
    pipeline.collect(evolved)
    first = pipeline.train_rft(evolved.replace(rft_rounds=1))
    facts = pipeline.train_rft(evolved).facts
    rounds = [read_stage(each, "rft") for each in evolved.each_rft_round()]
    assert rounds[0].manifest["finished"] == first.manifest["finished"]  # found again
    best = rounds[0].table("demonstrations").to_dict("records")
    played, learnt = rounds[1].records("sampled"), rounds[1].table("demonstrations")
    assert {record["task"] for record in played} == set(trees_of(evolved))
    assert facts == rounds[1].facts and (facts["round"], facts["sampled"]) == (2, 8)
    known = {(r["task"], *r["actions"]) for r in best}
    kept = [r for r in played if r["reward"] >= 0.5 and (r["task"], *r["actions"]) not in known]
    assert facts["sampled_kept"] == len(kept) == len(learnt) - len(best)
    assert learnt["reward"].min() >= 0.5
    # The model of the first round, which imitates what earned most, has played, not the agent.
    context = pipeline.Context(evolved)
    world = context.environment
    jobs = (judged_episode(world, task, 0, None) for task in world.tasks("train")[-8:])
    before = [record["reward"] for record in lockstep(jobs, context.sampler(), 8)]
    assert facts["sampled_reward"] > sum(before) / len(before)
    made = [(each.rft.rft_rounds, stage) for each, stage in evolved.every_stage()]
    assert [number for number, stage in made if stage == "rft"] == [1, 2]
    four = evolved.replace(rft_rounds=4)
    assert [each.rft.rft_rounds for each in four.each_rft_round()] == [1, 2, 3, 4]
