"""What a comparison of estimators takes beside the run that it belongs to: hours, and tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from qvlib.pipeline import tuning
from qvlib.pipeline.comparison import PLAYED
from qvlib.pipeline.followed import MOST as FOLLOWED
from qvlib.pipeline.params import Params
from qvlib.pipeline.tuning import Try
from qvlib.tools.needs.counts import Measured, Pace
from qvlib.tools.needs.fitting import fitting
from qvlib.tools.needs.gpu_memory import memory
from qvlib.tools.needs.hours import Part, Stage, distinct, episode, models, searches
from qvlib.tools.needs.parts import Tokens, asked, collecting, read_of_pairs, training
from qvlib.tools.needs.prompts import Lengths


def parts(params: Params, run: Measured, length: Lengths, pace: Pace) -> list[Part]:
    """What a comparison adds to the run, in seconds.

    Every estimator is taken to be fitted as fast as those of the run in each of its epochs, and to
    play episodes as long as its method's. Which settings are the best is not known: the first try
    of each stands for them, and all their models are counted.
    """
    tries = tuning.read(params)
    tried = distinct((c, "q_model") for one in tries for c in tuning.tuned_on(one.params))
    of_best = distinct(
        (chain, stage)
        for one in _best(tries)
        for chain in one.params.each_seed()
        for stage in ("q_model", "control")
    )
    test, dev = _episodes(params, tries), params.ablations.trial_tasks
    chains = sum(len(tuning.tuned_on(one.params)) for one in tries)
    one, q = (episode(run.arms[arm], run, pace) for arm in ("sample", "q_n5"))
    scored = _scored(params, tries, run, length)
    return [
        searches("searches of other settings", _trees(params, tries), run, pace),
        models("models of the settings tried", tried, run, pace),
        Part("their episodes on dev tasks", 2 * chains * dev, chains * dev * (one + q)),
        models("models and controls of the best", of_best, run, pace),
        Part("their episodes on test tasks", test, test * q),
        Part("their scores of actions of test tasks", 0, scored * pace.token),
    ]


def tokens(params: Params, run: Measured, length: Lengths) -> list[Tokens]:
    """What a comparison adds to the run, in tokens: each estimator by what its fitting reads."""
    tries = tuning.read(params)
    tuned = [chain for one in tries for chain in tuning.tuned_on(one.params)]
    best = [chain for one in _best(tries) for chain in one.params.each_seed()]
    sample, q = run.arms["sample"], run.arms["q_n5"]
    dev, test = params.ablations.trial_tasks, params.evaluation.test_tasks * _arms(params)
    on_dev = [asked("", "agent", dev * len(tuned), sample, length, params)]
    on_dev += [asked("", "agent", dev, q, length, chain, scored=True) for chain in tuned]
    on_test = [asked("", "agent", test, q, length, chain, scored=True) for chain in best]
    searched = [collecting(chain, run, length) for chain, _ in _trees(params, tries)]
    return [
        _summed("searches of other settings", searched),
        _summed("models of settings tried", [training(c, run, length, False) for c in tuned]),
        _summed("their episodes on dev tasks", on_dev),
        _summed("models of the best", [training(c, run, length) for c in best]),
        _summed("their episodes on test tasks", on_test),
        Tokens("their scores", "q_base", 0, q=_scored(params, tries, run, length)),
    ]


def largest(params: Params) -> tuple[str, dict[str, float]]:
    """Of the estimators that are compared the one whose training takes most memory of a GPU."""
    needed = {one.name: memory(one.params)["training Q"] for one in tuning.read(params)}
    name = max(needed, key=lambda name: sum(needed[name].values()))
    return name, needed[name]


def _trees(params: Params, tries: Sequence[Try]) -> list[Stage]:
    """The searches of those whose trees are not the run's, such as the published discount's."""
    tuned = [chain for one in tries for chain in tuning.tuned_on(one.params)]
    best = [chain for one in _best(tries) for chain in one.params.each_seed()]
    own = [(chain, "trees") for chain in params.each_seed()]
    return distinct(((chain, "trees") for chain in [*tuned, *best]), own)


def _best(tries: Iterable[Try]) -> list[Try]:
    """The first try of each estimator."""
    return list({one.name: one for one in reversed(list(tries))}.values())


def _arms(params: Params) -> int:
    """Arms that are played anew on the test tasks, each shuffle of the controls one."""
    return len(PLAYED) - 1 + params.q_model.control_shuffles


def _episodes(params: Params, tries: Iterable[Try]) -> int:
    return params.evaluation.test_tasks * params.run.seeds * len(_best(tries)) * _arms(params)


def _scored(params: Params, tries: Iterable[Try], run: Measured, length: Lengths) -> float:
    """Tokens that are read to score pairs of test tasks and actions that the agent sampled."""
    step = length.prompt + length.action
    steps = params.evaluation.test_tasks * run.arms["sample"].steps
    return sum(
        read_of_pairs(chain, length) + min(FOLLOWED, steps) * fitting(chain).readers * step
        for one in _best(tries)
        for chain in one.params.each_seed()
    )


def _summed(part: str, rows: Sequence[Tokens]) -> Tokens:
    return Tokens(
        part,
        rows[0].who if rows else "agent",
        sum(row.tasks for row in rows),
        prompts=sum(row.prompts for row in rows),
        prompt=sum(row.prompt for row in rows),
        completion=sum(row.completion for row in rows),
        q=sum(row.q for row in rows),
    )
