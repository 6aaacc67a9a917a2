"""An arm, a world and an estimator of one's own: one file each, named by one parameter."""

import ast
import dataclasses
import json
import os
import sys
from pathlib import Path

import pytest

import qvlib
from qvlib import pipeline
from qvlib.agents.arm import Arm
from qvlib.agents.arms import ARMS
from qvlib.base import imports
from qvlib.base.errors import QvlibError
from qvlib.environments import WORLDS, contract, world_of
from qvlib.estimators import ESTIMATORS, estimator_of
from qvlib.pipeline.params import Params, make
from qvlib.report import numbers
from qvlib.runs.stage import read_stage, stage_path

ARM = '''
"""Of some sampled actions the one that names most words of the task."""

from typing import ClassVar

from qvlib.agents.arm import NO_Q, Player, arm
from qvlib.base.settings import Settings, setting
from qvlib.core.episodes import episode
from qvlib.core.reranker import Reranked


class EchoSettings(Settings):
    stage: ClassVar[str | None] = "episodes/echo"

    echo_n: int = setting(4, "actions that are sampled", ge=1)


class Echo:
    def score(self, states, actions):
        words = [set(state.task.instruction.split()) for state in states]
        return [
            [float(sum(word in action for word in told)) for action in row]
            for told, row in zip(words, actions, strict=True)
        ]


def player(cast):
    return Player(Reranked(cast.sampler(), Echo(), cast.params.echo.echo_n), episode)


ECHO = arm("echo", NO_Q, "the action that names most words", player, settings=EchoSettings)
'''

WORLD = '''
"""Take the lamp of the colour that was ordered from the shelf behind a door."""

from dataclasses import dataclass, replace

from qvlib.base.seeding import generator
from qvlib.base.settings import setting
from qvlib.core.types import Proposal, State, Step, Task
from qvlib.environments import Names, World, WorldSettings

COLOURS = ("red", "amber", "pink", "blue", "green", "grey")  # warm ones, cold ones
ROOMS = {"train": range(10), "dev": range(10, 12), "test": range(12, 18)}


class StoreSettings(WorldSettings):
    max_steps: int = setting(3, "actions after which an episode is cut off", ge=1)
    timeout_value: float = setting(-0.25, "value of a state cut off", decides="trees", ge=-1, le=0)
    shelf: int = setting(4, "lamps on a shelf, the one that was ordered among them", ge=2, le=6)


@dataclass(frozen=True)
class Store:
    size: int
    max_steps: int
    timeout_value: float
    name: str = "store"

    def tasks(self, split):
        pairs = [(room, colour) for room in ROOMS[split] for colour in COLOURS]
        said = "take the {} lamp of room {}"
        return [Task(f"{c}-{r}", said.format(c, r), f"room {r}", c) for r, c in pairs]

    def reset(self, task):
        return State(task, "a closed door", admissible=("open[door]", "leave[store]"))

    def step(self, state, action):
        if not self.accepts(state, action):
            seen = Step(action, state.observation)
            return replace(state, history=(*state.history, seen), valid=False)
        if action == "open[door]":
            others = [colour for colour in COLOURS if colour != state.task.goal]
            rng = generator("shelf", state.task.id)
            shelf = [state.task.goal, *rng.choice(others, self.size - 1, replace=False).tolist()]
            listed = (*(f"take[{colour}]" for colour in sorted(shelf)), "leave[store]")
            return self._after(state, action, " [SEP] ".join(sorted(shelf)), listed)
        taken = action.removeprefix("take[").removesuffix("]")
        return self._after(state, action, "done", (), self.reward(state.task.goal, taken), True)

    def reward(self, goal, taken):
        if taken not in COLOURS:
            return 0.0
        near = COLOURS.index(taken) // 3 == COLOURS.index(goal) // 3
        return 1.0 if taken == goal else 0.5 * near

    def _after(self, state, action, seen, listed, reward=0.0, done=False):
        history = (*state.history, Step(action, seen))
        return State(state.task, seen, history, listed, reward, done)

    def accepts(self, state, action):
        return action in state.admissible


class Clerk:
    """Knows what was ordered, and errs."""

    def __init__(self, errors):
        self.errors = errors

    def propose(self, requests):
        return [
            [Proposal(self.act(r.state, generator(*r.key, k))) for k in range(r.n)]
            for r in requests
        ]

    def act(self, state, rng):
        wanted = f"take[{state.task.goal}]" if state.history else "open[door]"
        return str(rng.choice(state.admissible)) if rng.random() < self.errors else wanted


def build(settings, folder):
    return Store(settings.shelf, settings.max_steps, settings.timeout_value)


STORE = World(
    "store",
    StoreSettings,
    build,
    "Take from the shelf what was ordered.",
    Names(groups="rooms", more="open more rooms"),
    demonstrator=lambda environment, errors: Clerk(0.6 * errors),
)
'''

ESTIMATOR = '''
"""The value of an action is that of its kind: the mean over the trees, or how often it won."""

import json
from collections import defaultdict
from typing import ClassVar

from qvlib.base.settings import Settings, setting
from qvlib.core.preferences import kind
from qvlib.estimators import Card, Estimator, Fitted


class KindSettings(Settings):
    stage: ClassVar[str | None] = "q_model"

    kind_weight: float = setting(1.0, "weight of the pairs beside the trees", ge=0)


class Kinds:
    def __init__(self, values):
        self.values = values

    def score(self, states, actions):
        return [[self.values.get(kind(action), 0.0) for action in row] for row in actions]


def mean_by_kind(rows):
    values = defaultdict(list)
    for action, value in rows:
        values[kind(action)].append(value)
    return {name: sum(row) / len(row) for name, row in values.items()}


def fit(problem, settings):
    tasks = {pair.task for pair in problem.train}
    nodes = [n for t in problem.trees() if t["task"] in tasks for n in t["nodes"] if n["visits"]]
    values = mean_by_kind((n["action"], n["value"]) for n in nodes if n["action"])
    won = [(p.chosen, 1.0) for p in problem.train] + [(p.rejected, -1.0) for p in problem.train]
    for name, value in mean_by_kind(won).items():
        values[name] = values.get(name, 0.0) + settings.kind_weight * value
    model = Kinds(values)
    right = [model.score([None], [[p.chosen, p.rejected]])[0] for p in problem.held_out]
    order = [(a > b) + 0.5 * (a == b) for a, b in right]
    facts = {
        "pairs": len(problem.train),
        "held_out_pairs": len(problem.held_out),
        "held_out_accuracy": sum(order) / len(order) if order else None,
        "dropped_pairs": 0,
        "dropped_held_out_pairs": 0,
    }

    def save(folder):
        folder.mkdir()
        (folder / "kinds.json").write_text(json.dumps(values, sort_keys=True))

    card = Card("json", ("kinds",), "The mean value of the kind of an action.", "means by kind")
    return Fitted(save, [{"step": 0, "split": "held-out"}], facts, card)


def load(folder, reference, settings, open_model):
    return Kinds(json.loads((folder / "kinds.json").read_text()))


KINDS = Estimator("kinds", KindSettings, fit, load)
'''

SMALL = {
    "agent_width": 48,
    "agent_layers": 1,
    "agent_heads": 2,
    "vocabulary": 400,
    "demonstrations": 40,
    "clone_epochs": 8,
    "clone_lr": 6e-3,
    "other_demonstrations": 0,
    "train_tasks": 12,
    "iterations": 10,
    "heldout_share": 0.3,
    "control_shuffles": 1,
    "test_tasks": 8,
    "search_iterations": 3,
    "bootstrap": 100,
    "processes": 1,
    "wandb_mode": "disabled",
}


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    """A folder outside the package with the three files, where this process and workers look."""
    folder = tmp_path_factory.mktemp("outside")
    files = {"echo_arm": ARM, "store_world": WORLD, "kinds_estimator": ESTIMATOR}
    for name, source in files.items():
        (folder / f"{name}.py").write_text(source)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]))
        yield folder
    for name in files:
        sys.modules.pop(name, None)
    imports._imported.cache_clear()


@pytest.fixture(scope="module")
def in_the_world(outside, tmp_path_factory):
    """A finished run in the world of one's own."""
    runs = tmp_path_factory.mktemp("extended") / "runs"
    params = make({**SMALL, "environment": "store_world:STORE", "runs_dir": str(runs)})
    return pipeline.until("episodes", params)


def folders(params: Params) -> dict[str, tuple[bytes, int]]:
    """Each stage's folder: its manifest, and when that was written."""
    return {
        path.parent.name: (path.read_bytes(), path.stat().st_mtime_ns)
        for path in Path(params.run.runs_dir).glob("*/manifest.json")
    }


@pytest.mark.slow
def test_a_world_of_ones_own(in_the_world):
    params, context = in_the_world.params, in_the_world.context
    assert type(params.world).__name__ == "StoreSettings"
    assert (params.world.max_steps, params.world.timeout_value, params.world.shelf) == (3, -0.25, 4)
    assert params.replace(shelf=5).digest("data") != params.digest("data")
    store = in_the_world.environment
    assert (store.name, store.size, store.max_steps) == ("store", 4, 3)
    assert contract.check_environment(store, context.demonstrator()) > 20
    data = in_the_world.stage("data").manifest
    assert list(data["data_hashes"]) == ["store_world.py"]
    assert data["decided_by"]["data"]["shelf"] == 4
    assert numbers.uses_table(context).columns[2] == "rooms"
    arms = numbers.arm_table(params).set_index("arm")
    assert list(arms.index) == [arm.name for arm in params.arms()] and len(arms) > 8
    assert arms.loc["sample", "reward"] > 0 and arms["reward"].max() <= 1


def test_what_is_wrong_with_a_world_of_ones_own_is_told(outside, tmp_path):
    given = {"environment": "store_world:STORE", "runs_dir": str(tmp_path)}
    with pytest.raises(QvlibError, match=r"unknown parameter 'shelv'; did you mean 'shelf'\?"):
        make({**given, "shelv": 3})
    with pytest.raises(QvlibError, match=r"'shelf'.*it means: lamps on a shelf"):
        make({**given, "shelf": 1})
    with pytest.raises(QvlibError, match=r"belongs to environment.*is store_world:STORE"):
        make({**given, "catalogue_products": 300})
    with pytest.raises(QvlibError, match="the train split has 60 tasks; lower them, or open"):
        assert pipeline.context_of(make(given)).uses
    with pytest.raises(QvlibError, match="environment 'store_world:SHOP'"):
        make({**given, "environment": "store_world:SHOP"})


@pytest.mark.slow
def test_an_arm_of_ones_own(in_the_world):
    base = in_the_world.params
    before = folders(base)
    params = base.replace(extra_arms=("echo_arm:ECHO",), echo_n=3, processes=2)
    run = pipeline.until("episodes", params)  # workers find it and the world too
    folder = stage_path(params, "episodes/echo")
    after = folders(params)
    assert after.keys() - before.keys() == {folder.name}
    assert before.items() <= after.items()  # no other arm was replayed, no stage made again
    played = run.episodes("echo")
    assert {record["task"] for record in played} == {task.id for task in run.context.uses.test}
    assert len(played) == 8 and {record["arm"] for record in played} == {"echo"}
    known = [arm.name for arm in base.arms()]
    place = known.index("likely_n10") + 1  # behind the last arm without Q of the same agent
    arms, gains = numbers.arm_table(params), numbers.gain_table(params)
    assert list(arms["arm"]) == [*known[:place], "echo", *known[place:]]
    assert list(gains["arm"]) == list(arms["arm"])[1:]
    assert set(arms.loc[arms["arm"] == "echo", "kind"]) == {"no Q"}
    assert set(gains["against"]) == {"sample"}
    assert numbers.metrics(params)["arms"]["echo"]["tasks"] == 8
    reward = arms.set_index("arm")["reward"]
    assert reward["echo"] > reward["random_n5"]  # it reads the task
    deciding = run.stage("episodes/echo").manifest["decided_by"]["episodes/echo"]
    assert deciding["echo_n"] == 3 and deciding["arm"] == "echo_arm:ECHO"
    other = params.replace(echo_n=5)
    assert other.digest("episodes/echo") != params.digest("episodes/echo")
    assert all(
        other.digest(f"episodes/{name}") == base.digest(f"episodes/{name}") for name in known
    )


def test_what_is_wrong_with_an_arm_of_ones_own_is_told(outside):
    with pytest.raises(QvlibError, match=r"extra_arms 'echo_arm:ECO': .* has no 'ECO'"):
        make({"extra_arms": ["echo_arm:ECO"]})
    with pytest.raises(QvlibError, match=r"extra_arms: 'echo_arm:Echo' is no qvlib.*Arm"):
        make({"extra_arms": ["echo_arm:Echo"]})
    with pytest.raises(QvlibError, match="two arms are called 'echo'"):
        make({"extra_arms": ["echo_arm:ECHO", "echo_arm:ECHO"]})
    with pytest.raises(QvlibError, match="unknown parameter 'echo_n'"):
        make({"echo_n": 3})


@pytest.mark.slow
def test_an_estimator_of_ones_own(in_the_world):
    base = in_the_world.params
    before = folders(base)
    params = base.replace(estimator="kinds_estimator:KINDS", kind_weight=0.5)
    assert params.estimator.kind_weight == 0.5 and "beta" not in params.flat()
    pipeline.train_q(params.replace(processes=2))  # workers find it too
    run = pipeline.until("episodes", params)
    folder = stage_path(params, "q_model") / "model"
    assert {path.name for path in folder.iterdir()} == {"kinds.json", "facts.json", "README.md"}
    values = json.loads((folder / "kinds.json").read_text())
    assert values.keys() == {"open", "take", "leave"} and values["open"] > values["leave"]
    control = json.loads((stage_path(params, "control") / "model-0" / "kinds.json").read_text())
    assert control.keys() == values.keys() and control != values
    assert "means by kind" in (folder / "README.md").read_text()
    model, store = run.context.q_model(), run.environment
    start = store.reset(store.tasks("test")[0])
    assert model.score([start], [["open[door]", "leave[store]"]]) == [
        [values["open"], values["leave"]]
    ]
    names = [arm.name for arm in base.arms() if arm.name != "tuned_policy"]
    assert [arm.name for arm in params.arms()] == names  # it is no policy
    assert list(numbers.arm_table(params)["arm"]) == names
    for record in run.episodes("q_n5"):
        for step in record["trace"]:
            best = max(candidate["q"] for candidate in step["candidates"])
            chosen = [c["q"] for c in step["candidates"] if c["action"] == step["action"]]
            assert chosen[0] == best
    unchanged = ("data", "agent", "trees", "pairs", "episodes/sample", "episodes/search")
    assert all(params.digest(stage) == base.digest(stage) for stage in unchanged)
    assert before.items() <= folders(params).items()
    assert read_stage(params, "q_model").facts["held_out_accuracy"] is not None


@pytest.mark.slow
def test_its_scoring_rules_are_those_that_need_no_policy(in_the_world):
    params = in_the_world.params.replace(estimator="kinds_estimator:KINDS", rule_tasks=2, rule_n=2)
    rules = [rule.name for rule in pipeline.rules_of(params)]
    assert rules == [rule.name for rule in pipeline.RULES if rule.name != "published_code"]
    pipeline.train_q(params)
    stage = pipeline.try_rules(params)
    played = {record["arm"] for record in stage.records("episodes")}
    assert played == set(pipeline.rule_names(params)) and len(played) == 1 + 3 * len(rules)
    assert pipeline.rules_of(in_the_world.params) == pipeline.RULES


def test_inside_the_package_each_is_a_file_and_a_line():
    """The lists hold one entry a thing, made in the thing's own file."""
    assert all(isinstance(arm, Arm) for arm in ARMS)
    assert len({arm.name for arm in ARMS}) == len(ARMS)
    for name, path in WORLDS.items():
        assert path == f"qvlib.environments.{name}:WORLD" and world_of(name).name == name
    for name, path in ESTIMATORS.items():
        assert path == f"qvlib.estimators.{name}:ESTIMATOR" and estimator_of(name).name == name
    for module in {arm.players.__module__ for arm in ARMS}:
        assert module.startswith("qvlib.agents.")
    assert [field.name for field in dataclasses.fields(Arm)][:4] == [
        "name",
        "kind",
        "says",
        "players",
    ]


def test_no_module_asks_which_arm_world_or_estimator_it_is():
    """Nothing is compared with a name of the lists outside the file or folder of its own."""
    root = Path(qvlib.__file__).parent
    own = {name: root / "environments" / name for name in WORLDS}
    own |= dict.fromkeys(ESTIMATORS, root / "estimators")
    own |= {arm.name: root / "agents" for arm in ARMS}
    asked = [
        f"{path.relative_to(root)}:{line}: {name}"
        for path in sorted(root.rglob("*.py"))
        for line, name in compared(ast.parse(path.read_text()))
        if name in own
        and not path.is_relative_to(own[name])
        # `search` is an action of worlds too, which know no arms
        and not (name == "search" and path.is_relative_to(root / "environments"))
    ]
    assert asked == []


def compared(tree: ast.AST):
    """(line, text) of each text that a module compares something with, or matches."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            if all(isinstance(op, ast.In | ast.NotIn) for op in node.ops):
                sides = node.comparators  # `name in table` asks the table
        elif isinstance(node, ast.MatchValue):
            sides = [node.value]
        else:
            continue
        for side in sides:
            for part in side.elts if isinstance(side, ast.Tuple | ast.List | ast.Set) else [side]:
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    yield node.lineno if hasattr(node, "lineno") else part.lineno, part.value


def test_the_check_sees_what_it_looks_for():
    source = 'if a == "x" or b in ("y", "z") or "w" in c:\n    match d:\n        case "v": pass'
    assert sorted(name for _, name in compared(ast.parse(source))) == ["v", "x", "y", "z"]
