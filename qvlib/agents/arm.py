"""An arm of an evaluation, as a thing: what is played, what it is called, what it builds on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from qvlib.base.settings import Settings
from qvlib.core.types import Agent, Environment, Job, QModel, Task

NO_Q, SCRIPTED, RERANKED, PART, TRIED, OTHER, CONTROL = KINDS = (
    "no Q",
    "scripted",
    "Q-reranked",
    "Q with a part taken off",
    "tried in the environment first",
    "other use",
    "control, shuffled labels",
)
Play = Callable[[Environment, Task, int], Job[dict[str, Any]]]
"""(environment, task, seed) -> a job for ``lockstep`` that returns the record of an episode."""


class Cast(Protocol):
    """What an arm may ask for: everything is loaded when first asked for, once a process."""

    params: Any  # the run's, by section: cast.params.evaluation.prior_weight
    environment: Environment
    world: Any  # what is known of the kind of environment
    uses: Any  # which tasks are used for what

    def demonstrator(self, errors: float | None = None) -> Agent:
        """The scripted agent of the world; ``errors``: how often it errs, else as the run says."""

    def q_by_kind(self) -> Mapping[tuple[str, str], float]:
        """Mean Q of each kind of page and action, over states of the training pairs."""

    def model(self, which: str = "agent") -> Any:
        """The model of an agent, as for ``sampler``: a ``LocalModel`` or a served one."""

    def sampler(
        self, which: str = "agent", greedy: bool = False, temperature: float | None = None
    ) -> Agent:
        """An agent sampled as the run says; which: an agent, a stage of tuning, or ``q_model``."""

    def q_model(self) -> QModel:
        """The Q model of the run."""

    def control(self, shuffle: int) -> QModel:
        """A Q model that was trained on shuffled labels."""


@dataclass(frozen=True)
class Player:
    """Who proposes the actions, and how a task is played with them."""

    agent: Agent
    play: Play


def _always(params: Any) -> bool:
    return True


def _nothing(params: Any) -> str:
    return ""


@dataclass(frozen=True)
class Arm:
    """One way to play the test tasks.

    name: in tables, and of its folder of episodes. kind: what it is, for pictures: one of
    ``KINDS``. says: what is executed at each step, in half a sentence.
    players: the players of its variants by name: ``<name>`` alone, or ``<name>/0``, ``<name>/1``,
        ..., whose rewards are averaged task by task.
    needs: the stages it builds on. decided_by: further parameters that decide its episodes, by the
        stage they name (``rerank``, ``search``). settings: parameters of its own.
    active: whether a run with these parameters plays it. wrong: why it cannot be played with them
        though it is active, with the remedy; "" where it can. Told as an error of the first of its
        ``settings``, which switches it on. variants: how many there are.
    against: the arm that its gain is over. sampled: whose model proposes, for the bill of a server;
        "" where no server could. origin, sha256: of one's own, what names it and the hash of its
        module; filled in by ``arms_of``.
    """

    name: str
    kind: str
    says: str
    players: Callable[[Cast], Mapping[str, Player]]
    needs: tuple[str, ...] = ("agent",)
    decided_by: tuple[str, ...] = ()
    settings: type[Settings] | None = None
    active: Callable[[Any], bool] = _always
    wrong: Callable[[Any], str] = _nothing
    variants: Callable[[Any], int] | None = None
    against: str = "sample"
    sampled: str = "agent"
    origin: str = ""
    sha256: str = ""

    def names(self, params: Any) -> Sequence[str]:
        """The names of its variants, as they stand in the records of episodes."""
        if self.variants is None:
            return (self.name,)
        return tuple(f"{self.name}/{k}" for k in range(self.variants(params)))


def arm(name: str, kind: str, says: str, player: Callable[[Cast], Player], **more: Any) -> Arm:
    """An arm without variants."""
    return Arm(name, kind, says, lambda cast: {name: player(cast)}, **more)
