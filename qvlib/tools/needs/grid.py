"""How long a grid of ablations takes, beside the run that it belongs to."""

from __future__ import annotations

from qvlib.pipeline import grids
from qvlib.pipeline.params import PER_ROUND, TRIAL, Params
from qvlib.tools.needs.counts import Measured, Pace
from qvlib.tools.needs.hours import Part, Stage, agents, distinct, episode, models, searches


def parts(params: Params, run: Measured, pace: Pace) -> list[Part]:
    """What its cells add: of each chain what neither the run nor another cell makes.

    An episode of a cell is as long as one of the run's reranked arm of five candidates, its replies
    as many more as it has candidates.
    """
    own = [of for chain in params.each_seed() for of in chain.every_stage()]
    made = distinct(_stages(params), (of for of in own if not _is_trial(of[1])))
    dev, seconds, played = params.ablations.trial_tasks, 0.0, 0
    sample, q = run.arms["sample"], run.arms["q_n5"]
    for cell, stage in made:
        if not _is_trial(stage):
            continue
        seconds += dev * episode(q, run, pace, cell.ablations.trial_n)
        played += dev
        if stage == "trial":  # beside Q one sample
            seconds += dev * episode(sample, run, pace)
            played += dev
    return [
        agents("agents of the grid's cells", made, pace),
        searches("their searches", made, run, pace),
        models("their Q models and controls", made, run, pace),
        Part("their episodes on dev tasks", played, seconds),
    ]


def _is_trial(stage: str) -> bool:
    return stage == "trial" or stage.startswith(TRIAL)


def _stages(params: Params) -> list[Stage]:
    """Every stage of every chain of every cell, those of earlier rounds too."""
    found: list[Stage] = []
    for cell in grids.read(params):
        needed = ["agent", *PER_ROUND, *cell.stages()]
        if f"{TRIAL}control" in needed:
            needed.append("control")
        for chain in cell.chains():
            earlier = chain.each_round()[:-1]
            found += [(each, stage) for each in earlier for stage in PER_ROUND]
            found += [(chain, stage) for stage in needed]
    return found
