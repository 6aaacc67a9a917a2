"""The data flow: task -> state -> request -> proposals -> next state. Each is a frozen value."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from operator import add, attrgetter
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Task:
    """One thing to do.

    ``id`` is unique in its environment and stable between processes. ``group`` names what
    tasks may share (a product, an article): splits never cut through a group, and
    bootstrap intervals resample groups. ``goal`` is the environment's own part.
    """

    id: str
    instruction: str
    group: str = ""
    goal: Any = None


@dataclass(frozen=True, slots=True)
class Step:
    """One action and the observation that answered it; ``described`` as in ``State.describe``."""

    action: str
    observation: str
    described: str = ""


@dataclass(frozen=True, slots=True)
class State:
    """A point of an episode, as a value: keep it, branch from it, never undo it.

    observation: what the agent reads now (after reset, the first one).
    history: the steps so far, oldest first; ``history[-1].observation == observation``.
    admissible: the actions that can be listed here; a free-text argument is written
        ``verb[<...>]``. None where the environment cannot tell.
    reward: terminal reward in [0, 1]; 0 before the end.
    valid: False if the last action was refused (the state is else unchanged).
    world: the environment's own immutable part.
    descriptions: beside each of ``admissible`` what the page shows of it, where the action is an
        identifier that says nothing, else ""; empty where every action says what it does.
    opening: the first observation where later ones do not repeat it and the task does not tell it,
        such as the room in which a game begins; the same in every state of an episode.
    """

    task: Task
    observation: str
    history: tuple[Step, ...] = ()
    admissible: tuple[str, ...] | None = None
    reward: float = 0.0
    done: bool = False
    valid: bool = True
    world: Any = None
    descriptions: tuple[str, ...] = ()
    opening: str = ""

    def describe(self, action: str) -> str:
        """What an action does, where it does not say so itself; "" where it does."""
        return dict(zip(self.admissible or (), self.descriptions, strict=False)).get(action, "")

    @property
    def depth(self) -> int:
        """Number of actions taken."""
        return len(self.history)


class Environment(Protocol):
    """A world with deterministic transitions and a reward at the end.

    max_steps: actions after which an episode is cut off.
    timeout_value: what search backs up for an episode cut off (arXiv 2409.09345's code: -0.5 in
        WebShop, -1 in HotPotQA). Metrics count such an episode as 0.
    """

    name: str
    max_steps: int
    timeout_value: float

    def tasks(self, split: str) -> Sequence[Task]:
        """The tasks of ``train``, ``dev`` or ``test``, in a fixed order."""

    def reset(self, task: Task) -> State:
        """The first state of a task."""

    def step(self, state: State, action: str) -> State:
        """The state after an action; ``state`` itself stays. A refused action: ``valid=False``."""

    def accepts(self, state: State, action: str) -> bool | None:
        """False if the action would be refused or change nothing, None if only trying can tell."""


Key = tuple[int, str, str]
"""(seed, task id, node): with k, what every random draw is derived from."""


@dataclass(frozen=True, slots=True)
class Request:
    """Ask an agent for ``n`` actions in ``state``; ``key`` seeds their draws."""

    state: State
    n: int
    key: Key


@dataclass(frozen=True, slots=True)
class Cost:
    """What was spent; costs add up with ``+``, and many with ``total``.

    proposals: actions that were asked for and answered. Whoever asks counts them: in a single
        ``Proposal`` it is 0.
    tokens: tokens generated, those of redrawn actions included.
    prompt_tokens: tokens of the prompts read.
    refused: draws that the environment would have refused, and that were drawn again.
    unparsable: draws that were replies of a chat model and named no action.
    env_steps: steps taken in the environment.
    """

    proposals: int = 0
    tokens: int = 0
    prompt_tokens: int = 0
    refused: int = 0
    unparsable: int = 0
    env_steps: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(*map(add, _amounts(self), _amounts(other)))

    def drawn(self) -> dict[str, int]:
        """The costs of drawing by name, as records hold them; ``env_steps`` has its own place."""
        return {name: getattr(self, name) for name in DRAWN}


FREE = Cost()
DRAWN = ("proposals", "tokens", "prompt_tokens", "refused", "unparsable")
_amounts = attrgetter(*DRAWN, "env_steps")


def total(costs: Iterable[Cost]) -> Cost:
    """The sum of costs; ``FREE`` of none."""
    return sum(costs, FREE)


@dataclass(frozen=True, slots=True)
class Proposal:
    """One proposed action.

    log_prob: log-probability of the action's tokens under the agent in nats, summed,
        at temperature 1 and before any truncation; None if the model does not tell.
    cost: what it cost, draws that were refused in its place included.
    q: the Q model's score, log pi - log pi_ref in nats, where one was asked.
    considered: the candidates it was chosen from, where it was chosen.
    """

    action: str
    log_prob: float | None = None
    cost: Cost = FREE
    q: float | None = None
    considered: tuple[Proposal, ...] = ()


Job = Generator[Request, list[Proposal], T]
"""Work that asks an agent as it goes: yields requests, is sent proposals, returns a ``T``."""


class Agent(Protocol):
    """Proposes actions for many states in one batched call."""

    def propose(self, requests: Sequence[Request]) -> list[list[Proposal]]:
        """For each request, ``request.n`` proposals; the same alone and in a batch."""


class QModel(Protocol):
    """Scores candidate actions of many states in one batched call."""

    def score(self, states: Sequence[State], actions: Sequence[Sequence[str]]) -> list[list[float]]:
        """Q of each action of each state. Comparable within a state, not between states."""
