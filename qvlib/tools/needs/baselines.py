"""How long the arms at one budget take, beside the run that they belong to."""

from __future__ import annotations

from collections.abc import Iterable

from qvlib.pipeline import baselines, tuning
from qvlib.pipeline.params import Params
from qvlib.pipeline.tuning import Try
from qvlib.tools.needs.counts import Measured, Pace
from qvlib.tools.needs.hours import Part, distinct, model, models, searches
from qvlib.tools.needs.parts import tokens
from qvlib.tools.needs.prompts import Lengths

TUNED = ("rft", "eto")
"""The stages that tune the agent itself."""


def parts(params: Params, run: Measured, length: Lengths, pace: Pace) -> list[Part]:
    """What tuning the arms on dev tasks and playing the best on test tasks adds, in seconds.

    To tune an agent on its trees is taken to be as long as fitting a Q model to their pairs. Which
    settings are the best is not known: the first try of each arm stands for them.
    """
    tries = baselines.read(params)
    first = {one.name: one for one in reversed(tries)}.values()
    made = [
        (chain, stage)
        for chains, some in ((tuning.tuned_on, tries), (Params.each_seed, first))
        for one in some
        for chain in chains(one.params)
        for stage in chain.upstream(f"dev/{one.name}")
    ]
    own = [of for chain in params.each_seed() for of in chain.every_stage()]
    new = distinct(made, own)
    agents = [chain for chain, stage in new if stage in TUNED]
    dev = params.ablations.trial_tasks / params.evaluation.test_tasks
    share = dev * len(tuning.tuned_on(params)) / params.run.seeds
    on_dev, on_test = (_played(some, run, length) for some in (tries, first))
    return [
        searches("searches of other settings", new, run, pace),
        models("models of the settings tried", new, run, pace),
        Part("agents tuned", len(agents), sum(model(each, run, pace) for each in agents)),
        Part(
            "their episodes on dev tasks", round(on_dev[0] * share), on_dev[1] * share * pace.token
        ),
        Part("their episodes on test tasks", on_test[0], on_test[1] * pace.token),
    ]


def _played(tries: Iterable[Try], run: Measured, length: Lengths) -> tuple[int, float]:
    """Episodes of arms on the test tasks of all chains, and the tokens of their agents."""
    rows = [
        row
        for one in tries
        for row in tokens(one.params, run, length)
        if row.part == f"arm {one.name}"
    ]
    return sum(row.tasks for row in rows), sum(r.prompt + r.completion or r.q for r in rows)
