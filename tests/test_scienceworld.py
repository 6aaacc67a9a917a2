"""ScienceWorld by the same contract, on a stand-in; the real one needs the extra and Java."""

import json
import shutil

import pytest

from qvlib import environments, pipeline
from qvlib.base.errors import QvlibError
from qvlib.core.episodes import visited
from qvlib.environments import contract
from qvlib.environments.scienceworld import build, environment, experiments, simulator, tour
from qvlib.environments.scienceworld.experiments import FILE, SPLITS
from qvlib.environments.scienceworld.scientist import Scientist
from qvlib.environments.scienceworld.settings import ScienceWorldSettings
from qvlib.environments.scienceworld.simulator import Simulator
from qvlib.pipeline.params import make

GOLD = ("open door", "go to kitchen", "focus on cup", "fill cup")


class Server:
    """A stand-in for the Java side: gold actions in order earn a quarter; "break cup" fails."""

    def __init__(self):
        self.done, self.calls = [], 0

    def reset(self):
        self.done = []

    def freeActionLook(self):
        return "This is the hall.\n\n\tA door"

    def step(self, command):
        self.calls += 1
        if command not in (*GOLD, "look around", "break cup"):
            return "No known action matches that input."
        self.done.append(command)
        return f"You {command}, the {len(self.done)}. thing you do."

    def getScore(self):
        right = [c for c in self.done if c in GOLD]
        earned = 0.25 * sum(a == b for a, b in zip(right, GOLD, strict=False))
        return -1.0 if "break cup" in self.done else earned

    def getCompleted(self):
        return self.getScore() == 1


class Env:
    def __init__(self):
        self.server, self.loads = Server(), []

    def get_goal_progress(self):
        done = self.server.done
        return "Sequential Subgoals:\n" + "\n".join(
            f"{i}\t{str(part in done).lower()}\tGoalFind\t{part}" for i, part in enumerate(GOLD)
        )

    def load(self, task, variation):
        self.loads.append((task, variation))
        self.server.reset()


def write(folder, count=2):
    rows = [
        {
            "task": "fill",
            "variation": 10 * i + k,
            "split": split,
            "instruction": f"Fill cup {10 * i + k}.",
            "gold": GOLD,
        }
        for i, split in enumerate(SPLITS)
        for k in range(count)
    ]
    (folder / FILE).write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    live = Simulator(Env())
    monkeypatch.setattr(simulator, "simulator", lambda: live)
    monkeypatch.setattr(environment, "simulator", lambda: live)
    write(tmp_path)
    return build(tmp_path, max_steps=6), live


def run(world, *actions):
    state = world.reset(world.tasks("train")[0])
    for action in actions:
        state = world.step(state, action)
    return state


def test_contract_of_the_adapter(stand_in):
    assert contract.check_environment(stand_in[0], Scientist(0.3)) > 20


def test_rewards(stand_in):
    world, _ = stand_in
    assert run(world, *GOLD).reward == 1 and run(world, *GOLD).done
    assert not run(world, *GOLD[:3]).done and run(world, *GOLD[:3]).reward == 0
    part = run(world, GOLD[0], *["look around"] * 5)
    assert part.done and part.reward == 0.25  # it has run out of commands
    failed = run(world, GOLD[0], "break cup")
    assert failed.done and failed.reward == 0
    assert not run(world, *["fly"] * 7).done  # what is refused is no command


def test_an_episode_costs_a_step_a_step_and_a_branch_its_replay(stand_in):
    world, live = stand_in
    state = run(world, *GOLD[:3])
    assert live.env.server.calls == 3 and len(live.env.loads) == 1
    world.step(state, "Look  AROUND"), world.step(state, "look around")
    assert live.env.server.calls == 4 and len(live.env.loads) == 1
    other = world.step(state, "fill cup")  # the simulator stands after looking around
    assert live.env.server.calls == 8 and len(live.env.loads) == 2 and other.done


def test_a_refused_action_leaves_the_simulator_where_it_is(stand_in):
    world, live = stand_in
    refused = run(world, GOLD[0], "fly")
    assert not refused.valid and refused.world == GOLD[:1] and world.step(refused, GOLD[1]).valid
    assert len(live.env.loads) == 1


def test_the_answers_last_asked_for_are_kept(monkeypatch):
    monkeypatch.setattr(simulator, "ANSWERS", 2)
    live = Simulator(Env())
    for action in ("open door", "look around", "open door", "inventory", "open door"):
        live.answer("fill", 0, (), action)
    assert live.env.server.calls == 3  # not asked for longest: look around
    live.answer("fill", 0, (), "look around")
    assert live.env.server.calls == 4


def test_what_the_simulator_lists_in_any_order_is_put_in_one():
    cups = [f"a wood cup (containing {paint} paint)" for paint in ("red", "blue", "yellow")]
    shown = (
        f"In it is: a drawer, {', '.join(cups)}.\n\ta bowl (containing nothing)\n"
        + "".join(f"\t{cup}\n" for cup in cups)
        + "A door"
    )
    told = sorted(cups)
    assert simulator.tidy(shown) == "\n".join(
        [f"In it is: a drawer, {', '.join(told)}.", "a bowl (containing nothing)", *told, "A door"]
    )
    assert simulator.tidy("a jug (containing a cup (containing tea)), a cup (containing milk)") == (
        "a jug (containing a cup (containing tea)), a cup (containing milk)"
    )


def test_the_readings_of_an_ambiguous_action_are_numbered_in_one_order(stand_in):
    world, live = stand_in
    answers = {
        "pour paint": "Ambiguous request: Please enter the number\n"
        "0:\tpour red paint\n1:\tpour blue paint",
        "0": "Red it is.",
        "1": "Blue it is.",
    }
    live.env.server.step = lambda command: answers.get(
        command, "No known action matches that input."
    )
    asked = run(world, "pour paint")
    assert (
        asked.observation
        == "Ambiguous request: Please enter the number\n0: pour blue paint\n1: pour red paint"
    )
    assert world.step(asked, "1").observation == "Red it is."  # the simulator calls it 0
    assert live._chosen("1") == "1"  # once it is chosen, a number is a number
    assert (
        not world.step(asked, "fly").valid and world.step(asked, "0").observation == "Blue it is."
    )  # after a refusal it is asked again


def test_accepts(stand_in):
    world, _ = stand_in
    state = run(world, GOLD[0])
    assert world.accepts(state, "open door") is None and world.accepts(state, " ") is False
    assert (
        world.accepts(run(world), "look around") is False
        and world.accepts(state, "look around") is None
    )
    assert (
        world.accepts(world.step(state, "inventory"), "inventory") is None
    )  # the stand-in knows none: it was refused
    assert world.accepts(world.step(state, "look around"), "Look around") is False
    assert world.accepts(run(world, *GOLD), "open door") is False


@pytest.mark.parametrize(
    ("most", "reward", "reached"),
    [(6, 1.0, "; ".join(GOLD)), (3, 0.75, "; ".join(GOLD[:3])), (1, 0.25, GOLD[0])],
)
def test_a_tour_counts_what_the_simulator_tells(
    stand_in, tmp_path, monkeypatch, most, reward, reached
):
    monkeypatch.setattr(tour, "simulator", lambda: stand_in[1])
    short = build(tmp_path, max_steps=most)
    task = short.tasks("train")[0]
    told = environments.tour_of(environments.world_of("scienceworld"), short, task)
    end = visited(short, task, told.walk)[-1]
    assert end.done and end.reward == told.by_hand == reward and told.walk == GOLD[:most]
    assert told.counted == f"Reached: {reached}. The simulator's score is {100 * reward:.1f}"


class Library:
    """A stand-in for the package: thirty tasks with nine variations in each split."""

    get_task_names = staticmethod(lambda: [f"task-{i:02}" for i in range(30)])
    get_variations_train, get_variations_dev, get_variations_test = (
        staticmethod(lambda first=first: list(range(first, first + 9))) for first in (0, 100, 200)
    )
    get_gold_action_sequence = staticmethod(lambda: ["wait"])

    def __init__(self):
        self.env = self.server = self
        self.forgot = 0

    def load(self, *_, **__):
        pass

    def freeActionTaskDesc(self):
        return "Task Description:\nYour task is to wait."

    def forget(self):
        self.forgot += 1


@pytest.mark.parametrize("count", [20, 120])
def test_what_is_demonstrated_searched_and_tested_are_all_kinds_alike(tmp_path, monkeypatch, count):
    library = Library()
    monkeypatch.setattr(experiments, "simulator", lambda: library)
    settings = ScienceWorldSettings(game_count=count)
    experiments.write_experiments(settings, tmp_path)
    found = experiments.read_experiments(tmp_path)
    kinds = {split: [task.goal[0] for task in tasks] for split, tasks in found.items()}
    assert (
        set(kinds["test"]) <= set(kinds["train"])
        and set(kinds["dev"]) <= set(kinds["train"])
        and library.forgot
    )
    assert (
        len({task.group for tasks in found.values() for task in tasks})
        == sum(map(len, found.values()))
        == count
    )
    assert len(set(kinds["train"])) == min(30, len(kinds["train"])) and kinds["train"] != sorted(
        kinds["train"]
    )
    first = (tmp_path / experiments.FILE).read_text()
    experiments.write_experiments(settings, tmp_path)
    assert (tmp_path / experiments.FILE).read_text() == first


ROW = {"task": "boil", "variation": 0, "split": "test", "instruction": "Boil.", "gold": ["wait"]}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{}", "line 2 is no experiment; delete the file and leave data_dir empty"),
        (json.dumps({**ROW, "gold": [7]}), "line 2 is no experiment"),
        (json.dumps({**ROW, "split": "valid"}), "line 2 is no experiment"),
        (json.dumps({**ROW, "instruction": None}), "line 2 is no experiment"),
        (json.dumps({**ROW, "instruction": "Boil\ud800"}), "half a character"),
        ("[]", "line 2 is not an object"),
        ("{", "line 2 is not JSON"),
    ],
)
def test_a_wrong_list(stand_in, tmp_path, line, says):
    (tmp_path / FILE).write_text(f"\n{line}\n")
    with pytest.raises(QvlibError) as caught:
        build(tmp_path)
    assert says in str(caught.value) and FILE in str(caught.value)


def test_no_list(stand_in, tmp_path):
    with pytest.raises(QvlibError, match=f"holds no {FILE}; leave data_dir empty"):
        build(tmp_path / "elsewhere")
    (tmp_path / FILE).write_text(f"\n{json.dumps(ROW)}\n\n")
    assert [task.instruction for task in build(tmp_path).tasks("test")] == ["Boil."]


def test_without_the_package_or_java(tmp_path, monkeypatch):
    simulator.simulator.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "scienceworld", None)
    with pytest.raises(QvlibError, match=r"pip install 'qvlib\[scienceworld\]'"):
        build(tmp_path)
    monkeypatch.setitem(
        __import__("sys").modules, "scienceworld", type("Package", (), {"ScienceWorldEnv": None})
    )
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(QvlibError, match="no `java` on the PATH; install"):
        build(tmp_path)


@pytest.mark.slow
def test_the_real_one(tmp_path):
    """Chosen, kept and played: gold actions win, the contract holds on a short episode."""
    pytest.importorskip(
        "scienceworld", reason="needs scienceworld: pip install 'qvlib[scienceworld]'"
    )
    if shutil.which("java") is None:
        pytest.skip("needs a Java runtime")
    simulator.simulator.cache_clear()
    changes = {"game_count": 3, "max_steps": 2, "runs_dir": str(tmp_path)}
    context = pipeline.context_of(make({"environment": "scienceworld", **changes}))
    real = context.environment
    assert [len(real.tasks(split)) for split in SPLITS] == [1, 1, 1] and "task is to" in real.tasks(
        "test"
    )[0].instruction
    demonstrator = context.demonstrator()
    assert contract.check_environment(real, demonstrator, tasks=1, splits=SPLITS[:1]) > 2
    task, long = real.tasks("train")[0], build(next(tmp_path.glob("data-*")))
    _, states = contract.play(long, task, Scientist(0.0))
    assert states[-1].reward == 1 and [
        s.observation for s in contract.play(long, task, Scientist(0.0))[1]
    ] == [s.observation for s in states]
    simulator.simulator().env.close()
    simulator.simulator.cache_clear()
