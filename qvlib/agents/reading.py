"""Does Q read? Arms that rerank as the method does, with a part of what Q might read taken off.

Of the same n samples they execute what Q prefers under another task's instruction, what the mean Q
of a kind of action prefers, and what Q prefers within the kind of the first draw. A gain that they
share is not made by reading what an action says.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from qvlib.agents.arm import PART, Arm, Cast, Player, arm
from qvlib.agents.reranking import best, has_other
from qvlib.base.seeding import generator
from qvlib.core.episodes import episode, under
from qvlib.core.types import QModel, State, Task

Kind = Callable[[State, str], tuple[str, str]]
"""(state, action) -> the kind of page and of action, as the world names them."""


@dataclass(frozen=True)
class Foreign:
    """A Q model that is told another task's instruction, and sees the page of its own task.

    tasks: those it is drawn from, per task once, of another group where there is one; where none
    has another instruction, its own is told.
    """

    q_model: QModel
    tasks: Sequence[Task]
    seed: int

    def score(self, states: Sequence[State], actions: Sequence[Sequence[str]]) -> list[list[float]]:
        told = [under(state, self.instead_of(state.task)) for state in states]
        return self.q_model.score(told, actions)

    @property
    def has_another(self) -> bool:
        """Whether some task has another instruction at all."""
        return len({instruction for instruction, _ in self._known}) > 1

    def instead_of(self, task: Task) -> str:
        """The instruction that is told instead of a task's."""
        key = task.id, task.instruction
        if key not in self._told:
            self._told[key] = self._drawn(task)
        return self._told[key]

    def _drawn(self, task: Task) -> str:
        foreign = [known for known in self._known if known[0] != task.instruction]
        others = [known for known in foreign if known[1] != task.group] or foreign
        if not others:
            return task.instruction
        rng = generator(self.seed, task.id, "foreign")
        return others[int(rng.integers(len(others)))][0]

    @cached_property
    def _known(self) -> list[tuple[str, str]]:
        """Instruction and group of the tasks: a world makes its tasks whenever they are read."""
        return [(task.instruction, task.group) for task in self.tasks]

    @cached_property
    def _told(self) -> dict[tuple[str, str], str]:
        """What was drawn, by the id and the instruction of a task."""
        return {}


@dataclass(frozen=True)
class KindOnly:
    """A score that knows the kind of an action and nothing else: the mean Q of that kind.

    mean: (page, kind) -> mean Q, as ``mean_by_kind`` has it; one that is not there has the mean of
    all.
    """

    mean: Mapping[tuple[str, str], float]
    kind: Kind

    def score(self, states: Sequence[State], actions: Sequence[Sequence[str]]) -> list[list[float]]:
        known = sum(self.mean.values()) / max(1, len(self.mean))
        return [
            [self.mean.get(self.kind(state, action), known) for action in candidates]
            for state, candidates in zip(states, actions, strict=True)
        ]


def mean_by_kind(
    q_model: QModel, decisions: Iterable[tuple[State, Sequence[str]]], kind: Kind
) -> dict[tuple[str, str], float]:
    """Mean Q of each kind of action over states with candidate actions, less each state's mean.

    A log-ratio is Q up to a constant of its state, which says nothing of the kind.
    """
    states, actions = zip(*decisions, strict=True)
    scored: dict[tuple[str, str], list[float]] = defaultdict(list)
    for state, candidates, scores in zip(
        states, actions, q_model.score(states, actions), strict=True
    ):
        level = sum(scores) / len(scores)
        for action, q in zip(candidates, scores, strict=True):
            scored[kind(state, action)].append(q - level)
    return {key: sum(values) / len(values) for key, values in sorted(scored.items())}


@dataclass(frozen=True)
class WithinKind:
    """Q among candidates of the first one's kind alone: it may choose which, not what to do."""

    q_model: QModel
    kind: Kind

    def score(self, states: Sequence[State], actions: Sequence[Sequence[str]]) -> list[list[float]]:
        return [
            [
                q if self.kind(state, action) == self.kind(state, candidates[0]) else -math.inf
                for action, q in zip(candidates, scores, strict=True)
            ]
            for state, candidates, scores in zip(
                states, actions, self.q_model.score(states, actions), strict=True
            )
        ]


def kind_in(cast: Cast) -> Kind:
    """The kinds of the run's world."""
    world = cast.world
    return lambda state, action: (world.place(state), world.kind(state, action))


def _foreign(cast: Cast) -> QModel:
    return Foreign(cast.q_model(), cast.uses.test, cast.params.run.seed)


def _kind_only(cast: Cast) -> QModel:
    return KindOnly(cast.q_by_kind(), kind_in(cast))


def _within_kind(cast: Cast) -> QModel:
    return WithinKind(cast.q_model(), kind_in(cast))


def _arm(name: str, n: int, says: str, scorer: Callable[[Cast], QModel]) -> Arm:
    def player(cast: Cast) -> Player:
        return Player(best(cast, cast.sampler(), scorer(cast), n), episode)

    return arm(
        f"{name}_n{n}",
        PART,
        f"as q_n{n}, {says}",
        player,
        needs=("pairs", "q_model"),
        decided_by=("rerank",),
    )


FOREIGN_N5, FOREIGN_N10 = (
    _arm("foreign_q", n, "with Q told another task's instruction", _foreign) for n in (5, 10)
)
KIND_ONLY_N5, KIND_ONLY_N10 = (
    _arm("kind_only", n, "with the mean Q of the kind of action", _kind_only) for n in (5, 10)
)
WITHIN_KIND_N5, WITHIN_KIND_N10 = (
    _arm("within_kind", n, "among the actions of the first draw's kind alone", _within_kind)
    for n in (5, 10)
)


def _other_foreign(cast: Cast) -> Player:
    return Player(best(cast, cast.sampler("other_agent"), _foreign(cast), 5), episode)


OTHER_FOREIGN_N5 = arm(
    "other_agent_foreign_q_n5",
    PART,
    "as other_agent_q_n5, with Q told another task's instruction",
    _other_foreign,
    needs=("other_agent", "q_model"),
    decided_by=("rerank",),
    active=has_other,
    against="other_agent_sample",
    sampled="other_agent",
)
SCORED = (FOREIGN_N5, FOREIGN_N10, WITHIN_KIND_N5, WITHIN_KIND_N10, OTHER_FOREIGN_N5)
"""Those whose candidates the Q model scores."""
