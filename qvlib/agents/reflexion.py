"""The arms Reflexion: a task is tried again, with lessons that the model writes of failed trials.

Reflexion (arXiv 2303.11366), with and without reranking by Q. As in its public code a success ends
the trials and the last three lessons are told. Where rewards are graded the best trial counts, as
of ``best_of_n``, which is the same without lessons.

The small agent cannot read lessons: of it the arms are plain retries with other draws, until a
success.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from qvlib.agents.arm import TRIED, Cast, Player, arm
from qvlib.agents.prompted import (
    ACT,
    MOST_LESSONS,
    REFLECT,
    Asked,
    Prompted,
    Reads,
    asking,
    writers,
)
from qvlib.agents.reranking import best
from qvlib.base.settings import Settings, setting
from qvlib.core.episodes import episode, replay, trials_of
from qvlib.core.types import DRAWN, Agent, Cost, Environment, Job, Proposal, Request, Task, total

STAGES = ("episodes/reflexion", "episodes/reflexion_q")


class ReflexionSettings(Settings):
    """Trials with lessons."""

    reflexion_trials: int = setting(
        0,
        "most trials of a task in the arms reflexion and reflexion_q (its public code for WebShop: "
        "10); 0 = no such arms",
        decides=STAGES,
        ge=0,
    )


def reflexion(
    environment: Environment, task: Task, seed: int, most: int, reflects: bool
) -> Job[dict[str, Any]]:
    """The record of the best of at most so many trials, at the cost of all, lessons included.

    For a ``Prompted`` agent. reflects: whether it has a critic. A trial draws as that of
    ``best_of_n`` does. The end that a lesson is about is walked to again, which is no new step.
    """
    lessons: tuple[str, ...] = ()
    played: list[dict[str, Any]] = []
    spent: list[Cost] = []
    lesson_cost = Cost()  # paid before the trial that is told it

    def told(request: Request) -> Job[list[Proposal]]:
        return (yield Asked(request.state, request.n, request.key, lessons=lessons))

    for trial in range(most):
        played.append((yield from asking(episode(environment, task, seed, trial=trial), told)))
        spent.append(lesson_cost + Cost(**{n: played[-1][n] for n in (*DRAWN, "env_steps")}))
        if played[-1]["reward"] >= 1 or trial == most - 1:
            break
        if reflects:
            end = replay(environment, task, played[-1]["actions"])
            key = (seed, task.id, f"lesson {trial}")
            (lesson,) = yield Asked(end, 1, key, REFLECT, lessons)
            lesson_cost = lesson.cost
            lessons = (*lessons, lesson.action)[-MOST_LESSONS:]
    best_trial = max(played, key=lambda record: record["reward"])
    every = total(spent)
    trials = trials_of(zip(spent, (record["reward"] for record in played), strict=True))
    return best_trial | every.drawn() | {"env_steps": every.env_steps, "trials": trials}


def _player(cast: Cast) -> Player:
    return _trying(cast, Reads(cast.sampler()))


def _player_q(cast: Cast) -> Player:
    return _trying(cast, best(cast, Reads(cast.sampler()), cast.q_model(), 5))


def _trying(cast: Cast, acting: Agent) -> Player:
    parts, most = writers(cast), cast.params.reflexion.reflexion_trials
    play = partial(reflexion, most=most, reflects=REFLECT in parts)
    return Player(Prompted({ACT: acting, **parts}), play)


def _active(params: Any) -> bool:
    return params.reflexion.reflexion_trials > 0


REFLEXION = arm(
    "reflexion",
    TRIED,
    "up to reflexion_trials trials of a task, each told the lessons of those that failed, the best "
    "of them as the environment judges",
    _player,
    settings=ReflexionSettings,
    active=_active,
)
REFLEXION_Q = arm(
    "reflexion_q",
    TRIED,
    "as reflexion, with of five sampled actions the one with the highest Q",
    _player_q,
    needs=("q_model",),
    decided_by=("rerank",),
    active=_active,
)
