"""Both worlds keep the contract; one that breaks a rule is caught by that rule's name."""

from dataclasses import dataclass, field, replace
from typing import ClassVar

import pytest
from toy import Scripted

from qvlib.base.errors import QvlibError
from qvlib.core.types import Proposal, State, Step, Task
from qvlib.environments import contract, hotpotqa, webshop
from qvlib.environments.hotpotqa.reader import Reader
from qvlib.environments.webshop.generator import write_catalogue
from qvlib.environments.webshop.shopper import Shopper


def test_webshop(tmp_path):
    write_catalogue(tmp_path, 300, 0)
    shop = webshop.build(tmp_path)
    assert contract.check_environment(shop, Shopper(shop), goes_on=True) > 20


def test_webshop_with_random_actions(tmp_path):
    write_catalogue(tmp_path, 200, 0)
    shop = webshop.build(tmp_path)
    actions = (
        "search[shirt]",
        "click[next >]",
        "click[< prev]",
        "click[buy now]",
        "click[description]",
        "click[nowhere]",
    )
    assert contract.check_environment(shop, Scripted(actions), goes_on=True) > 20


def test_hotpotqa(encyclopaedia):
    world = hotpotqa.build(encyclopaedia)
    assert contract.check_environment(world, Reader(world), goes_on=True) > 20


def test_hotpotqa_with_random_actions(encyclopaedia):
    world = hotpotqa.build(encyclopaedia)
    titles = list(world.corpus.texts)[:3]
    actions = (
        *(f"search[{t}]" for t in titles),
        "search[nobody]",
        "lookup[the]",
        "lookup[in]",
        "think[so]",
        "finish[yes]",
        "bogus",
    )
    assert contract.check_environment(world, Scripted(actions), tasks=6, goes_on=True) > 60


@dataclass(frozen=True)
class Stairs:
    """Climb ``height`` steps; keeps every rule. Subclasses break one each."""

    height: int = 3
    max_steps: int = 5
    timeout_value: float = -0.5
    name: str = "stairs"

    def tasks(self, split):
        return [Task(f"{split}-{i}", f"climb {i}", f"{split}-{i}") for i in range(2)]

    def reset(self, task):
        return State(task, "floor 0", admissible=("up",), world=0)

    def step(self, state, action):
        if action != "up" or state.done:
            history = (*state.history, Step(action, state.observation))
            return replace(state, history=history, valid=False)
        floor = state.world + 1
        seen, done = f"floor {floor}", floor == self.height
        return State(
            state.task,
            seen,
            (*state.history, Step(action, seen)),
            ("up",),
            float(done),
            done,
            True,
            floor,
        )

    def accepts(self, state, action):
        return action == "up" and not state.done


class RepeatsAnId(Stairs):
    def tasks(self, split):
        return [Task("same", "climb", split)]


class CutsAGroup(Stairs):
    def tasks(self, split):
        return [Task(f"{split}-{i}", "climb", f"group {i}") for i in range(2)]


class HasNoGroups(Stairs):
    def tasks(self, split):
        return [replace(t, group="") for t in super().tasks(split)]


class ShufflesTasks(Stairs):
    turns: ClassVar = []

    def tasks(self, split):
        self.turns.append(split)
        return super().tasks(split)[:: 1 if len(self.turns) % 2 else -1]


class StartsDifferently(Stairs):
    turns: ClassVar = []

    def reset(self, task):
        self.turns.append(task)
        return replace(super().reset(task), observation=f"floor 0 again {len(self.turns)}")


class PaysTooMuch(Stairs):
    def step(self, state, action):
        after = super().step(state, action)
        return replace(after, reward=2.0 * after.reward)


class PaysOnTheWay(Stairs):
    def step(self, state, action):
        after = super().step(state, action)
        return replace(after, reward=0.5) if after.world == 1 else after


class PaysNothingThatIsANumber(Stairs):
    def step(self, state, action):
        after = super().step(state, action)
        return replace(after, reward=float("nan")) if after.done else after


class ForgetsHistory(Stairs):
    def step(self, state, action):
        after = super().step(state, action)
        return replace(after, history=after.history[-1:])


class RemembersAnotherObservation(Stairs):
    def step(self, state, action):
        after = super().step(state, action)
        return replace(after, history=(*after.history[:-1], Step(action, "else")))


@dataclass
class Loose:
    """A state that can be set."""

    task: Task
    observation: str
    history: tuple = ()
    admissible: tuple = ("up",)
    reward: float = 0.0
    done: bool = False
    valid: bool = True
    world: int = 0

    @property
    def depth(self):
        return len(self.history)


class HasLooseStates(Stairs):
    def reset(self, task):
        return Loose(task, "floor 0")

    def step(self, state, action):
        strict = State(
            state.task,
            state.observation,
            state.history,
            ("up",),
            state.reward,
            state.done,
            True,
            state.world,
        )
        after = super().step(strict, action)
        return Loose(*(getattr(after, name) for name in Loose.__dataclass_fields__))


class KeepsAListInTheWorld(Stairs):
    def reset(self, task):
        return replace(super().reset(task), world=[0])

    def step(self, state, action):
        after = super().step(replace(state, world=state.world[0]), action)
        return replace(after, world=[after.world])


@dataclass(frozen=True, eq=True)
class Box:
    """Hashable, and mutable all the same."""

    floors: list = field(default_factory=list, hash=False)


class ChangesItsState(Stairs):
    def reset(self, task):
        return replace(super().reset(task), world=Box([0]))

    def step(self, state, action):
        after = super().step(replace(state, world=state.world.floors[-1]), action)
        if after.valid:
            state.world.floors.append(after.world)
            return replace(after, world=Box([after.world]))
        return replace(after, world=state.world)


class DependsOnTheClock(Stairs):
    turns: ClassVar = []

    def step(self, state, action):
        self.turns.append(action)
        after = super().step(state, action)
        if not after.valid:
            return after
        seen = f"{after.observation} at {len(self.turns)}"
        return replace(after, observation=seen, history=(*after.history[:-1], Step(action, seen)))


class ReplaysTheHistory(Stairs):
    """Holds one current state, as a server does; comes to another by playing from the start."""

    current: ClassVar = {}

    def step(self, state, action):
        if self.current.get("state") is not state:
            replayed = self.reset(state.task)
            for step in state.history:
                replayed = self.climb(replayed, step.action)
        self.current["state"] = self.climb(state, action)
        return self.current["state"]

    def climb(self, state, action):
        self.work(30)
        return Stairs.step(self, state, action)

    def work(self, calls):
        if calls:
            self.work(calls - 1)


class ForgetsItsOpening(Stairs):
    def reset(self, task):
        return replace(super().reset(task), opening="floor 0")


class OpensWithSomethingElse(Stairs):
    def reset(self, task):
        return replace(super().reset(task), opening="a cellar")


class AcceptsAnything(Stairs):
    def step(self, state, action):
        return super().step(state, "up") if not state.done else super().step(state, action)


class LeavesRefusalsOut(Stairs):
    def step(self, state, action):
        after = super().step(state, action)
        return after if after.valid else replace(state, valid=False)


class MovesWhenRefusing(Stairs):
    def step(self, state, action):
        after = super().step(state, action)
        return after if after.valid or state.done else replace(after, world=state.world - 1)


class PromisesWhatItRefuses(Stairs):
    def accepts(self, state, action):
        return True


class TellsANumber(Stairs):
    def accepts(self, state, action):
        return 1


class EndsByItself(Stairs):
    def step(self, state, action):
        after = super().step(state, action)
        return replace(after, done=True) if after.depth >= self.max_steps else after


class GoesOnAfterTheEnd(Stairs):
    def step(self, state, action):
        return super().step(replace(state, done=False), action)


class NeverTimesOut(Stairs):
    timeout_value = 0.5

    def __init__(self):
        object.__setattr__(self, "timeout_value", 0.5)


class HasNoTasks(Stairs):
    def tasks(self, split):
        return [] if split == "dev" else super().tasks(split)


class SaysNothing(Stairs):
    def tasks(self, split):
        return [replace(t, instruction=" ") for t in super().tasks(split)]


@dataclass
class Up:
    def propose(self, requests):
        return [[Proposal("up")] * r.n for r in requests]


def test_a_world_that_keeps_every_rule():
    assert contract.check_environment(Stairs(), Up()) == 3 * 2 * 4


@pytest.mark.parametrize(
    ("broken", "rule"),
    [
        (NeverTimesOut, "timeout_value"),
        (HasNoTasks, "tasks: split 'dev' has none"),
        (SaysNothing, "instructions"),
        (HasNoGroups, "groups"),
        (RepeatsAnId, "unique ids"),
        (CutsAGroup, "disjoint splits"),
        (ShufflesTasks, "order of tasks"),
        (StartsDifferently, "reset"),
        (ForgetsItsOpening, "opening: .* but it began with 'floor 0'"),
        (OpensWithSomethingElse, "opening: .* is not what is observed"),
        (PaysTooMuch, "rewards: .* 2.0 is not in"),
        (PaysOnTheWay, "rewards: .* 0.5 before the end"),
        (PaysNothingThatIsANumber, "rewards: .* nan"),
        (ForgetsHistory, "history"),
        (RemembersAnotherObservation, "history: .* 'else'"),
        (HasLooseStates, "frozen states: .* can be set"),
        (KeepsAListInTheWorld, "frozen states: .* mutable"),
        (ChangesItsState, "unchanged states"),
        (DependsOnTheClock, "replay"),
        (ReplaysTheHistory, "cheap fork"),
        (AcceptsAnything, "refused actions: .* valid=True"),
        (LeavesRefusalsOut, "refused actions: .* not the last step"),
        (MovesWhenRefusing, "refused actions: .* changed the state"),
        (PromisesWhatItRefuses, "refused actions: .* accepted beforehand"),
        (TellsANumber, "accepts"),
        (EndsByItself, "step limit"),
        (GoesOnAfterTheEnd, "after the end"),
    ],
)
def test_each_broken_rule_is_named(broken, rule):
    with pytest.raises(AssertionError, match=rule):
        contract.check_environment(broken(), Up())


def test_a_promise_that_is_refused_in_the_agents_own_actions():
    class Promises(Stairs):
        def accepts(self, state, action):
            return action == "down"

    with pytest.raises(
        AssertionError, match=r"accepts: .* 'down' is accepted beforehand and then refused"
    ):
        contract.check_environment(Promises(), Scripted(("down",)))


def test_an_error_after_the_end_is_a_refusal():
    class Raises(Stairs):
        def step(self, state, action):
            if state.done:
                raise QvlibError("it is over; reset")
            return super().step(state, action)

    assert contract.check_environment(Raises(), Up()) == 24
    assert contract.check_environment(GoesOnAfterTheEnd(), Up(), goes_on=True) == 24
