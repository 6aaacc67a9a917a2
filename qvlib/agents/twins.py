"""Twins of a cell of a grid: what else chooses among the candidates that its Q model chooses from.

They say what a cell's reward is made of: of the draws alone, of what any Q model prefers, of what
the environment itself would choose. Each has a folder of episodes, named by what decides it alone:
cells whose agent and candidates are the same share those that need no Q model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from qvlib.agents.arm import Cast
from qvlib.agents.oracle import Oracle
from qvlib.agents.reading import Foreign
from qvlib.agents.reranking import best
from qvlib.agents.sampling import tells_log_probs
from qvlib.agents.scripted import has_demonstrator
from qvlib.core.reranker import Reranked
from qvlib.core.types import Agent, QModel


def _always(params: Any) -> bool:
    return True


@dataclass(frozen=True)
class Twin:
    """What chooses in the place of a cell's Q model.

    says: what it executes, in half a sentence. agent: the agent that chooses so. needs: the stages
    that it builds on. decided_by: the parameters that decide its episodes beside those, by the
    stage they name: ``trial`` has what decides how a Q model chooses, ``candidates`` has not.
    active: whether a cell with these parameters can play it.
    """

    name: str
    says: str
    agent: Callable[[Cast], Agent]
    needs: tuple[str, ...]
    decided_by: tuple[str, ...] = ("trial",)
    active: Callable[[Any], bool] = _always


def candidates(cast: Cast) -> Agent:
    """The agent as a cell of a grid samples it."""
    return cast.sampler(temperature=cast.params.ablations.trial_temperature or None)


def chosen_by(cast: Cast, q_model: QModel) -> Agent:
    """Of a cell's candidates what a Q model prefers."""
    return best(cast, candidates(cast), q_model, cast.params.ablations.trial_n)


def _likely(cast: Cast) -> Agent:
    return Reranked(candidates(cast), None, cast.params.ablations.trial_n, prior_weight=1.0)


def _oracle(cast: Cast) -> Agent:
    judge = Oracle(cast.environment, cast.demonstrator(0.0), cast.params.run.seed)
    return Reranked(candidates(cast), judge, cast.params.ablations.trial_n)


def _foreign(cast: Cast) -> Agent:
    return chosen_by(cast, Foreign(cast.q_model(), cast.uses.dev, cast.params.run.seed))


def _control(cast: Cast) -> Agent:
    return chosen_by(cast, cast.control(0))


AGENT = ("agent",)
TWINS = (
    Twin("likely", "the likeliest", _likely, AGENT, ("candidates",), tells_log_probs),
    Twin(
        "oracle",
        "the one after which the demonstrator without errors earns most",
        _oracle,
        AGENT,
        ("candidates",),
        has_demonstrator,
    ),
    Twin("foreign", "what Q prefers under another task's instruction", _foreign, ("q_model",)),
    Twin("control", "what a Q model of shuffled labels prefers", _control, ("control",)),
)
