"""How long a comparison of estimators takes, from the seconds that a finished run has measured."""

from __future__ import annotations

from dataclasses import dataclass

from qvlib.pipeline import tuning
from qvlib.pipeline.comparison import PLAYED
from qvlib.pipeline.params import Params
from qvlib.tools.needs.counts import Measured, Pace, Work
from qvlib.tools.needs.parts import tokens
from qvlib.tools.needs.prompts import Lengths


@dataclass(frozen=True)
class Part:
    """A part of the work: how many models, searches or episodes, and their seconds together."""

    part: str
    count: int
    seconds: float


def parts(params: Params, run: Measured, length: Lengths) -> list[Part]:
    """The run itself, then what a comparison adds; nothing where the run does not tell its pace.

    Every estimator is taken to be fitted as fast as those of the run, and to play episodes as long
    as its method's.
    """
    pace = run.pace
    if pace is None:
        return []
    agent, search = params.agent, params.search
    chains, shuffles = params.run.seeds, params.q_model.control_shuffles
    cloned = chains * agent.demonstrations * agent.clone_epochs * pace.demonstration
    trees = chains * search.rounds * search.train_tasks
    searching = trees * pace.tree * search.iterations / run.iterations
    rows = tokens(params, run, length)
    arms = [row for row in rows if row.part.startswith("arm ")]
    own = sum((row.prompt + row.completion) * pace.token for row in arms)
    model = search.rounds * search.train_tasks * run.pairs * pace.pair
    fitted = chains * (1 + shuffles)
    tries = tuning.read(params)
    names = len({one.name for one in tries})
    tried = sum(len(tuning.tuned_on(one.params)) for one in tries)
    dev, test = params.ablations.trial_tasks, params.evaluation.test_tasks
    played = test * names * chains * (len(PLAYED) - 1 + shuffles)
    one, q = (_seconds(run.arms[arm], run, pace) for arm in ("sample", "q_n5"))
    return [
        Part("agents of the run", chains, cloned),
        Part("its searches", trees, searching),
        Part("its Q models and controls", fitted, fitted * model),
        Part("its episodes", sum(row.tasks for row in arms), own),
        Part("models of the settings tried", tried, tried * model),
        Part("their episodes on dev tasks", 2 * tried * dev, tried * dev * (one + q)),
        Part("models and controls of the best", names * fitted, names * fitted * model),
        Part("their episodes on test tasks", played, played * q),
    ]


def _seconds(work: Work, run: Measured, pace: Pace) -> float:
    """Of an episode."""
    return (work.prompts * run.prompt + work.replies * run.reply) * pace.token


def note(run: Measured) -> str:
    """Where the hours are from."""
    pace = run.pace
    if pace is None:
        return "no hours: the run does not tell its seconds; give another with --from"
    return (
        f"hours of the comparison: as results {run.name} took on {pace.cpus} processors, "
        f"{1000 * pace.pair:,.0f} ms a training pair in fitting {pace.fitted}, "
        f"{1 / pace.token:,.0f} tokens a second in episodes; an estimator that tunes more or reads "
        "more takes longer"
    )
