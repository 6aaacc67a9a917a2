"""Estimators compared on the trees of one run: tuned on dev tasks, played once on test tasks.

The settings of ``tuning`` are tried as the cells of a grid are. The best of each estimator is
played on the test tasks by every chain, beside its own controls and with a part of it taken off.
What needs no Q model (one sample, the likeliest of n, the scripts) is the run's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from qvlib.agents.arms import BASE, GREEDY, MAIN
from qvlib.pipeline.cells import Cells
from qvlib.pipeline.context import Context, context_of
from qvlib.pipeline.episodes import play_of
from qvlib.pipeline.followed import STAGE as FOLLOWED
from qvlib.pipeline.followed import score_followed
from qvlib.pipeline.pairs import make_chain_pairs
from qvlib.pipeline.params import EPISODES, Params
from qvlib.pipeline.scored import Judged, score_chain
from qvlib.pipeline.trees import collect_chain
from qvlib.pipeline.trials import trial_of
from qvlib.pipeline.tuning import N, Try, best, read, tried, tuned_on
from qvlib.runs.stage import is_complete, seconds_beside

if TYPE_CHECKING:
    import pandas as pd

PLAYED = (MAIN, f"foreign_q_n{N}", f"kind_only_n{N}", f"within_kind_n{N}", f"control_q_n{N}")
"""The arms that are played anew with the best settings of each estimator."""
SHARED = (BASE, GREEDY, f"likely_n{N}", "script", "demonstrator")
"""Arms of the run that no estimator changes; those that it has are compared with."""
_ARMS = tuple(f"{EPISODES}{arm}" for arm in PLAYED)
_FITTED = ("trees", "pairs", "q_model")


@dataclass(frozen=True)
class Outcome:
    """What a comparison found.

    tries: of ``tuning.tried``. chosen: name -> the best try of those that were played on test
    tasks. failed: name -> why it was not: no settings could be tried, or the best not played.
    """

    tries: pd.DataFrame
    chosen: Mapping[str, Try]
    failed: Mapping[str, str]


def run(run_or_context: Params | Context) -> Outcome:
    """Try what was not tried yet, and play the best of each that was not played.

    Raises:
        QvlibError: what ``tuning.read`` refuses. What goes wrong with one estimator stops no other.
    """
    context = context_of(run_or_context)
    tries = read(context.params)
    missing = {
        (one.name, one.label, chain.run.seed): chain
        for one in tries
        for chain in tuned_on(one.params)
        if not is_complete(chain, "trial")
    }
    making = Cells(context, missing)
    with tqdm(total=len(missing), desc="trying estimators", unit="trial") as bar:
        _fit(making)
        making.play("trial", trial_of, bar.update)
    table = tried(tries, {(name, label): why for (name, label, _), why in making.failed.items()})
    chosen = best(tries, table)
    untried = table[~table["estimator"].isin(chosen)].groupby("estimator")["failed"].first()
    failed = untried.to_dict() | _play(context, chosen)
    return Outcome(table, {n: one for n, one in chosen.items() if n not in failed}, failed)


def _fit(making: Cells) -> None:
    making.each("trees", collect_chain)
    making.each("pairs", make_chain_pairs)
    making.fit("q_model")


def _play(context: Context, chosen: Mapping[str, Try]) -> dict[str, str]:
    """Play the chosen settings on the test tasks and score pairs of those; name -> what failed."""
    chains = {
        (one.name, chain.run.seed): (chain, own)
        for one in chosen.values()
        for chain, own in _chains(context.params, one)
    }
    searched = dict(chains.values())
    making = Cells(context, {key: c for key, (c, own) in chains.items() if not _is_played(c, own)})
    _fit(making)
    making.fit("control")
    making.play(_ARMS, lambda cell: play_of(cell, [cell.params.arm(arm) for arm in PLAYED]))
    making.each("scored", lambda cell: score_chain(cell, searched[cell.params]))
    making.each(FOLLOWED, score_followed)
    return {name: why for (name, _), why in making.failed.items()}


def _chains(params: Params, one: Try) -> Iterator[tuple[Params, Params]]:
    """The chains of a try, and beside each the run's own, whose search found the pairs."""
    return zip(one.params.each_seed(), params.each_seed(), strict=True)


def _is_played(chain: Params, own: Params) -> bool:
    return all(is_complete(*each) for each in _played(chain, own))


def _played(chain: Params, own: Params) -> Sequence[tuple[Any, str]]:
    of_chain = [(chain, stage) for stage in (*_ARMS, FOLLOWED)]
    return [*of_chain, (Judged(chain, own), "scored")]


def stages(params: Params) -> list[tuple[Any, str]]:
    """The stages of the comparison as far as they are known, and the parameters of each.

    Which settings are played on test tasks is known of those that are tried.
    """
    tries = read(params)
    found = [(c, s) for one in tries for c in tuned_on(one.params) for s in (*_FITTED, "trial")]
    for one in _known_best(tries).values():
        for chain, own in _chains(params, one):
            found += [(chain, stage) for stage in (*_FITTED, "control")]
            found += _played(chain, own)
    return found


def _known_best(tries: Sequence[Try]) -> dict[str, Try]:
    """The best of what was tried to the end."""
    whole = [o for o in tries if all(is_complete(c, "trial") for c in tuned_on(o.params))]
    return best(whole, tried(whole, {})) if whole else {}


def is_made(params: Params) -> bool:
    """Whether the best of what was tried is played; a try that failed is not missed."""
    chosen = _known_best(read(params))
    played = (_is_played(*each) for one in chosen.values() for each in _chains(params, one))
    return bool(chosen) and all(played)


def seconds(params: Params) -> float:
    """Seconds that its stages have taken so far beside the run's own, in all sessions."""
    return seconds_beside(params, stages(params))
