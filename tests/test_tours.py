"""A first look at each world: walks that end, rewards counted by hand, words."""

import sys

import pytest

from qvlib import environments, pipeline
from qvlib.base import imports
from qvlib.base.errors import QvlibError
from qvlib.core.episodes import visited
from qvlib.core.types import Request
from qvlib.environments import hotpotqa
from qvlib.environments.hotpotqa.metric import score
from qvlib.environments.hotpotqa.tour import _by_hand, _f1
from qvlib.pipeline import models
from qvlib.pipeline.data import uses
from qvlib.pipeline.params import make
from qvlib.report import sentences


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    runs = str(tmp_path_factory.mktemp("runs"))
    return pipeline.context_of(make({"catalogue_products": 200, "runs_dir": runs}))


def test_a_purchase_is_counted_by_hand(shop):
    world = shop.environment
    rewards = []
    for task in world.tasks("train")[:40]:
        tour = environments.tour_of(shop.world, world, task)
        end = visited(world, task, tour.walk)[-1]
        assert end.done and end.valid and tour.by_hand == end.reward
        assert (
            tour.walk[0].startswith("search[")
            and tour.walk[-1] == "click[buy now]"
            and tour.note(0)
            and not tour.note(9)
        )
        assert f"price of at most {task.goal.price_upper:.2f}" in tour.goal
        rewards.append(end.reward)
    assert len(set(rewards)) > 3 and min(rewards) < 1  # not only the easy case


def test_a_search_that_lists_nothing_ends_the_walk(shop):
    world = shop.environment
    task = world.tasks("train")[0]
    goal = type(task.goal)(
        **{name: getattr(task.goal, name) for name in task.goal.__dataclass_fields__}
        | {"query": "zzz"}
    )
    altered = type(task)(task.id, task.instruction, task.group, goal)
    tour = environments.tour_of(shop.world, world, altered)
    assert tour.walk == ("search[zzz]",) and tour.by_hand is None
    assert sentences.by_hand(tour, 0.0) == "After `search[zzz]`: **0.000** by the environment."


def test_a_reader_without_errors_is_right(encyclopaedia):
    world = hotpotqa.build(encyclopaedia)
    kind = environments.world_of("hotpotqa")
    for task in world.tasks("train")[:30]:
        tour = environments.tour_of(kind, world, task)
        after = visited(world, task, tour.walk)
        assert (
            after[-1].done
            and tour.by_hand == after[-1].reward == 1.0
            and task.goal.answer in tour.goal
        )
        assert all(title in tour.goal for title in task.goal.titles)
        near = world.step(
            after[-2], f"finish[in {task.goal.answer}]"
        )  # what the tour says of one word more
        assert f"would earn {near.reward:.0f}, with F1 {near.world.score.f1:.2f}" in tour.counted
        verbs = [step.action.partition("[")[0] for step in after[-1].history]
        assert [bool(tour.note(i + 1)) for i in range(len(verbs))] == [
            verb not in verbs[:i] for i, verb in enumerate(verbs)
        ]


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("The Bell.", "bell"),
        ("in Arl", "Arl"),
        ("yes", "Yes!"),
        ("yes, both", "yes"),
        ("no", "noon"),
        ("a the", "an"),
        ("Ann Moor", "Moor Ann Moor"),
        ("1999", "2001"),
        ("", "x"),
    ],
)
def test_answers_by_hand_are_scored_as_by_the_metric(answer, gold):
    official = score(answer, gold)
    assert _by_hand(answer, gold)[0] == official.exact and _f1(answer, gold) == pytest.approx(
        official.f1
    )


OWN = """
from toy import Maze, Scripted

class Guided(Maze):
    def demonstrator(self):
        return Scripted()

def bare(settings):
    return Maze()

def guided(settings):
    return Guided()
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The name of a module with two worlds, one of them with a demonstrator."""
    monkeypatch.syspath_prepend(str(tmp_path))
    name = f"toured_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(OWN)
    yield name
    sys.modules.pop(name, None)
    imports._imported.cache_clear()


def test_a_world_of_ones_own(tmp_path, module):
    for function, steps in (("guided", 3), ("bare", 0)):
        params = make(
            {
                "environment": f"{module}:{function}",
                "runs_dir": str(tmp_path / "runs"),
                "agent": "no/such/model",
            }
        )
        context = pipeline.context_of(params)
        kind, world = context.world, context.environment
        task = world.tasks("train")[0]
        tour = environments.tour_of(kind, world, task)
        end = visited(world, task, tour.walk)[-1]
        assert (
            len(tour.walk) == steps
            and end.done == bool(steps)
            and tour.by_hand is None
            and "`maze`" in tour.world
        )
        assert environments.names_of(kind, params.world).groups == "groups"
        assert kind.failures is None
        assert sentences.by_hand(tour, end.reward).endswith(
            f"**{end.reward:.3f}** by the environment."
        )


def test_who_shows_the_way(tmp_path, module, shop, monkeypatch):
    def first(params):
        context = pipeline.context_of(params)
        world = context.environment
        task = world.tasks("train")[0]
        return (
            pipeline.guide(context)
            .propose([Request(world.reset(task), 1, (0, task.id, "0"))])[0][0]
            .action
        )

    class Model:
        def agent(self, temperature, top_p):
            return self

        def propose(self, requests):
            raise AssertionError("asked")

    given = {"environment": f"{module}:bare", "runs_dir": str(tmp_path / "runs")}
    with monkeypatch.context() as patch:
        patch.setattr(models, "load", lambda context, name: Model())
        named = shop.params.replace(agent="smollm2")
        assert first(named).startswith("search[")  # the script, where there is one
        with pytest.raises(AssertionError, match="asked"):
            first(make({**given, "agent": "smollm2"}))
    with pytest.raises(QvlibError, match=r"has no demonstrator\(\)"):
        first(make(given))
    with pytest.raises(QvlibError, match="no such folder"):
        first(make({**given, "agent": str(tmp_path / "none")}))


@pytest.mark.parametrize(
    ("environment", "change", "remedy"),
    [
        ("webshop", {}, "raise catalogue_products or test_share"),
        ("hotpotqa", {}, "raise catalogue_products or test_share"),
        ("textworld", {}, "raise game_count or test_share"),
        ("scienceworld", {}, "raise game_count or test_share"),
        ("webshop", {"data_dir": "d"}, "put more into data_dir or test_share"),
        ("toy:Maze", {}, "let the environment give more$"),
    ],
)
def test_what_helps_where_tasks_are_too_few(environment, change, remedy):
    class World:
        def tasks(self, split):
            return ["task"] * 3

    params = make(
        {
            "environment": environment,
            **change,
            "demonstrations": 1,
            "other_demonstrations": 0,
            "train_tasks": 1,
        }
    )
    with pytest.raises(
        QvlibError,
        match=f"test_tasks = 200, but the test split has 3 tasks; lower them, or {remedy}",
    ):
        uses(params, World())
