"""How long the work of small agents takes, from the seconds that a finished run has measured."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from qvlib.pipeline.params import Params
from qvlib.tools.needs.counts import Measured, Pace, Work
from qvlib.tools.needs.fitting import epochs
from qvlib.tools.needs.parts import tokens
from qvlib.tools.needs.prompts import Lengths

Stage = tuple[Params, str]


@dataclass(frozen=True)
class Part:
    """A part of the work: how many models, searches or episodes, and their seconds together."""

    part: str
    count: int
    seconds: float


def of_the_run(params: Params, run: Measured, length: Lengths, pace: Pace) -> list[Part]:
    """The run itself: its agents, searches, models and episodes."""
    rows = [row for row in tokens(params, run, length) if row.part.startswith("arm ")]
    made = distinct(of for chain in params.each_seed() for of in chain.every_stage())
    played = sum((row.prompt + row.completion) * pace.token for row in rows)
    return [
        agents("agents of the run", made, pace),
        searches("its searches", made, run, pace),
        models("its Q models and controls", made, run, pace),
        Part("its episodes", sum(row.tasks for row in rows), played),
    ]


def distinct(stages: Iterable[Stage], but: Iterable[Stage] = ()) -> list[Stage]:
    """One of each outcome, but those of ``but``: what is shared is made once."""
    made = {(params.digest(stage), stage) for params, stage in but}
    found = {(params.digest(stage), stage): (params, stage) for params, stage in stages}
    return [of for key, of in found.items() if key not in made]


def agents(part: str, stages: Iterable[Stage], pace: Pace) -> Part:
    """Cloning what is named ``agent`` among the stages."""
    cloned = [params.agent for params, stage in stages if stage == "agent"]
    demonstrated = sum(agent.demonstrations * agent.clone_epochs for agent in cloned)
    return Part(part, len(cloned), demonstrated * pace.demonstration)


def searches(part: str, stages: Iterable[Stage], run: Measured, pace: Pace) -> Part:
    """Collecting the trees of a round each, as long as those of the run an iteration."""
    found = [params.search for params, stage in stages if stage == "trees"]
    seconds = sum(s.train_tasks * pace.tree * s.iterations / run.iterations for s in found)
    return Part(part, sum(search.train_tasks for search in found), seconds)


def models(part: str, stages: Iterable[Stage], run: Measured, pace: Pace) -> Part:
    """Fitting Q models and controls."""
    fitted = [
        (params, params.q_model.control_shuffles if stage == "control" else 1)
        for params, stage in stages
        if stage in ("q_model", "control")
    ]
    seconds = sum(count * model(params, run, pace) for params, count in fitted)
    return Part(part, sum(count for _, count in fitted), seconds)


def model(params: Params, run: Measured, pace: Pace) -> float:
    """Seconds of fitting one model, as fast a pair in an epoch as those of the run."""
    trees = params.search.rounds * params.search.train_tasks
    longer = epochs(params) / pace.epochs if pace.epochs else 1.0
    return trees * run.pairs_a_tree(params.pairs) * pace.pair * longer


def episode(work: Work, run: Measured, pace: Pace, n: int = 0) -> float:
    """Seconds of an episode of an arm; n: candidates of each step, where the arm had five."""
    replies = work.replies * (n / 5 if n else 1)
    return (work.prompts * run.prompt + replies * run.reply) * pace.token


def note(run: Measured, what: str) -> str:
    """Where the hours are from."""
    pace = run.pace
    if pace is None:
        return "no hours: the run does not tell its seconds; give another with --from"
    return (
        f"hours of {what}: as results {run.name} took on {pace.cpus} processors, "
        f"{1000 * pace.pair:,.0f} ms a training pair in fitting {pace.fitted}, "
        f"{1 / pace.token:,.0f} tokens a second in episodes; what parts share is counted once, "
        "what is there from before is counted; an estimator that tunes more or reads more takes "
        "longer"
    )
