"""SWEET-RL (arXiv 2503.15478): a critic of trajectories, and a policy tuned on what it prefers.

The advantage of a turn is the mean log-ratio over its tokens; trajectories are compared by its sum
over turns (Bradley-Terry). With ``sweet_privileged`` the critic also reads the task's solution, in
training and when it ranks the visited actions of training trees; a policy is then tuned on the best
against the worst of each state by DPO, and the score is the policy's log-ratio. Without it, the
critic reads the agent's prompt alone and is itself asked at test, where no solution may be read.
The sum over turns is as we read the method; its equations were not at hand, and its public code
takes the mean over all tokens of a trajectory and draws pairs from the halves of 16 ranked samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from qvlib.base.errors import QvlibError
from qvlib.base.settings import setting
from qvlib.core.episodes import replay, under
from qvlib.core.preferences import Pair
from qvlib.core.types import QModel, State
from qvlib.estimators import tuned
from qvlib.estimators.estimator import Estimator, Fitted, OpenModel, Problem
from qvlib.estimators.tuned import TunedSettings

if TYPE_CHECKING:
    from qvlib.models.local import LocalModel


class SweetRLSettings(TunedSettings):
    """The settings of SWEET-RL; a batch is of pairs of trajectories, of the policy of actions."""

    beta: float = setting(0.1, "beta of both losses (SWEET-RL: 0.1)", gt=0)
    log_prob: Literal["sum", "mean"] = setting(
        "mean",
        "log-probability of an action over its tokens for the critic (SWEET-RL: mean); a policy's "
        "is the sum",
    )
    sweet_privileged: bool = setting(
        False,
        "the critic reads the solution of training tasks, and a policy is tuned on what it prefers "
        "(SWEET-RL); else the critic itself scores",
        option=True,
    )

    @property
    def of_policy(self) -> SweetRLSettings:
        """The same for what is scored by."""
        return self.model_copy(update={"log_prob": "sum"} if self.sweet_privileged else {})


def fit(problem: Problem, settings: SweetRLSettings) -> Fitted:
    """Tune a copy of the reference on the trees of training tasks.

    ``pairs`` counts trees, with ``sweet_privileged`` the states whose actions the critic tells
    apart.

    Raises:
        QvlibError: as ``trajectory_dpo.fit``, or the world tells no solution.
    """
    from qvlib.estimators.data import encode
    from qvlib.estimators.trajectories import fit_trajectories
    from qvlib.estimators.tuning import fit_by_loop

    if not settings.sweet_privileged:
        what = "SWEET-RL's critic without training-time information"
        return fit_trajectories(problem, settings, what)
    pairs, held_out = (
        encode(problem.environment, problem.reference, rows)
        for rows in (list(_preferred(problem, settings)), problem.held_out)
    )
    method = f"SWEET-RL, beta {settings.beta:g}, on what a critic prefers that was told solutions"
    return fit_by_loop(problem, settings.of_policy, pairs, held_out, method)


def _preferred(problem: Problem, settings: SweetRLSettings) -> Iterator[Pair]:
    """The critic's best against its worst visited action of each state where the two differ."""
    from qvlib.estimators.data import best_against_worst, training_task
    from qvlib.estimators.log_ratio import LogRatio
    from qvlib.estimators.trajectories import tuned_on_trajectories

    solution = problem.solution
    if solution is None:
        raise QvlibError(
            "sweet_privileged needs solutions of training tasks, and this world tells none; give "
            "its World a solution(environment, task), or set sweet_privileged to false"
        )

    def told(state: State) -> State:
        return under(state, f"{state.task.instruction}\n{solution(state.task)}")

    critic, _ = tuned_on_trajectories(problem, settings, told)
    task_of = training_task(problem.environment, "tree")
    groups = [group for group in problem.train_siblings() if len(group.actions) > 1]
    states = [told(replay(problem.environment, task_of(g.task), g.path)) for g in groups]
    scorer = LogRatio(critic, problem.reference, settings.log_prob)
    scores = scorer.score(states, [group.actions for group in groups])
    for group, advantages in zip(groups, scores, strict=True):
        if max(advantages) > min(advantages):
            yield best_against_worst(group, advantages)


def load(
    folder: Path, reference: LocalModel, settings: SweetRLSettings, open_model: OpenModel
) -> QModel:
    """Log pi - log pi_ref of the critic, or of the policy that was tuned on what it prefers."""
    return tuned.load(folder, reference, settings.of_policy, open_model)


ESTIMATOR = Estimator(
    "sweet_rl",
    SweetRLSettings,
    fit,
    load,
    policy=True,
    loss="qvlib.estimators.trajectory_dpo:trajectory_loss",
    unit="nats",
)
