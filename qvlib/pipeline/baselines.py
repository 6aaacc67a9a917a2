"""Arms of any kind, each tuned by a few settings on dev tasks, the best played once on test tasks.

They are the lines of the file that the parameter ``baselines`` names: ``arm: [{parameter: value,
...}, ...]``, one try where an arm has nothing to tune, else as many for each. All play the same
tasks with the same agent, so that what they earn can be laid beside what they spend.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from qvlib.agents.arm import Arm
from qvlib.agents.arms import BASE, MAIN, arms_of
from qvlib.base.errors import QvlibError
from qvlib.base.paths import resolve
from qvlib.base.yaml_text import read_mapping
from qvlib.pipeline.cells import Cells
from qvlib.pipeline.comparison import Outcome
from qvlib.pipeline.context import Context, context_of
from qvlib.pipeline.episodes import dev_play_of, play_of
from qvlib.pipeline.grids import labelled
from qvlib.pipeline.pairs import make_chain_pairs
from qvlib.pipeline.params import DEV, EPISODES, AblationSettings, Params, RunSettings
from qvlib.pipeline.playing import Play
from qvlib.pipeline.q import train_eto
from qvlib.pipeline.rft import train_rft
from qvlib.pipeline.trees import collect_chain
from qvlib.pipeline.tuning import Try, best, plain, tried, tuned_on
from qvlib.runs.stage import is_complete, read_stage, seconds_beside

if TYPE_CHECKING:
    import pandas as pd

_OF_THE_RUN = {*RunSettings.names(), *AblationSettings.names()}
_FORM = "a mapping `arm: [{parameter: value, ...}, ...]`"


def read(params: Params) -> list[Try]:
    """The tries that the file of the parameter ``baselines`` has, in its order.

    Raises:
        QvlibError: no such file, not of that form, no line for ``sample`` or ``q_n5``, an arm that
            there is not or that its settings leave out, other numbers of tries, the same try twice,
            a parameter that is refused, or one that changes the agent or the tasks.
    """
    file = params.ablations.baselines
    lines = read_mapping(resolve(file), file, "baselines", _FORM, "params/grids/")
    for name in (BASE, MAIN):
        if name not in lines:
            raise QvlibError(
                f"{file}: has no line for {name}, beside which all others are laid; add "
                f"`{name}: [{{}}]`"
            )
    tries = [one for name, settings in lines.items() for one in _tries(params, str(name), settings)]
    counts = {str(name): len(settings) for name, settings in lines.items() if len(settings) > 1}
    if len(set(counts.values())) > 1:
        most, fewest = (pick(counts, key=counts.__getitem__) for pick in (max, min))
        raise QvlibError(
            f"{file}: tries {most} with {counts[most]} settings and {fewest} with "
            f"{counts[fewest]}; give each as many, or one, or more tuning is what wins"
        )
    return tries


def _tries(params: Params, name: str, settings: Any) -> Iterator[Try]:
    source = f"{params.ablations.baselines}, {name:.60}"
    if not (isinstance(settings, list) and settings and all(isinstance(s, dict) for s in settings)):
        raise QvlibError(f"{source}: is no list of {{parameter: value, ...}}")
    base = plain(params)
    seen: set[str] = set()
    for change in settings:
        if taken := [key for key in change if key in _OF_THE_RUN]:
            raise QvlibError(
                f"{source}: {taken[0]} is the whole run's; set it in the parameter file, not here"
            )
        changed = base.changed(change, source)
        _must_be_played(changed, name, source)
        if changed.digest(f"{EPISODES}{BASE}") != base.digest(f"{EPISODES}{BASE}"):
            raise QvlibError(
                f"{source}: {', '.join(change)} changes the agent, its sampling or the test tasks; "
                "arms are compared on those of the run"
            )
        if (digest := changed.digest(f"{DEV}{name}")) in seen:
            raise QvlibError(f"{source}: the same settings twice; leave one out")
        seen.add(digest)
        yield Try(name, labelled(change) or "as it is", changed, change)


def _must_be_played(params: Params, name: str, source: str) -> None:
    """Raise QvlibError unless these parameters play an arm of that name, which is one player."""
    played = {arm.name: arm for arm in params.arms()}
    if name not in played:
        known = {arm.name for arm in arms_of(params.evaluation.extra_arms)}
        why = (
            "these settings do not switch it on"
            if name in known
            else f"there is no such arm; give one of {', '.join(sorted(known))}"
        )
        raise QvlibError(f"{source}: {why}")
    if played[name].variants:
        raise QvlibError(f"{source}: it has several shuffles, and is no arm to tune; leave it out")


def run(run_or_context: Params | Context) -> Outcome:
    """Try what was not tried yet, and play the best of each arm that was not played.

    Raises:
        QvlibError: what ``read`` refuses, or one sample or Q of five could not be played. What goes
            wrong with another arm stops none.
    """
    context = context_of(run_or_context)
    tries = read(context.params)
    names = [*dict.fromkeys(one.name for one in tries)]
    failed: dict[tuple[str, str], str] = {}
    with tqdm(total=len(names), desc="trying arms on dev tasks", unit="arm") as bar:
        for name in names:
            missing = {
                (one.label, chain.run.seed): chain
                for one in tries
                for chain in tuned_on(one.params)
                if one.name == name and not is_complete(chain, f"{DEV}{name}")
            }
            wrong = _play(context, missing, name, DEV)
            failed |= {(name, label): why for (label, _), why in wrong.items()}
            bar.update()
    _must_be_there({name: why for (name, _), why in failed.items() if name == BASE})
    table = tried(tries, failed, _on_dev)
    chosen = best(tries, table)
    untried = table[~table["estimator"].isin(chosen)].groupby("estimator")["failed"].first()
    unplayed: dict[str, str] = untried.to_dict()
    with tqdm(total=len(chosen), desc="playing arms on test tasks", unit="arm") as bar:
        for name, one in chosen.items():
            missing = {
                chain.run.seed: chain
                for chain in one.params.each_seed()
                if not is_complete(chain, f"{EPISODES}{name}")
            }
            for why in _play(context, missing, name, EPISODES).values():
                unplayed[name] = why
            bar.update()
    _must_be_there(unplayed)
    return Outcome(table, {n: one for n, one in chosen.items() if n not in unplayed}, unplayed)


def _must_be_there(failed: Mapping[str, str]) -> None:
    """Raise QvlibError if an arm failed that all others are laid beside."""
    for name in (BASE, MAIN):
        if name in failed:
            raise QvlibError(
                f"{name}, beside which all others are laid, was not played: {failed[name]}"
            )


def _play(context: Context, missing: Mapping[Any, Params], name: str, split: str) -> dict[Any, str]:
    """Make what an arm builds on with each of the parameters, and play it; those that failed."""
    if not missing:
        return {}
    stage = f"{split}{name}"
    making = Cells(context, missing)
    needs = {need for cell in missing.values() for need in cell.upstream(stage)}
    if "trees" in needs:
        making.each("trees", collect_chain)
    if "pairs" in needs:
        making.each("pairs", make_chain_pairs)
    if "q_model" in needs:
        making.fit("q_model")
    for tuned, train in (("rft", train_rft), ("eto", train_eto)):
        if tuned in needs:
            making.each(tuned, train)
    making.play(stage, lambda cell: _played(cell, cell.params.arm(name), split))
    return dict(making.failed)


def _played(context: Context, arm: Arm, split: str) -> Play:
    return dev_play_of(context, arm) if split == DEV else play_of(context, [arm])


def _on_dev(one: Try) -> pd.DataFrame:
    """Rewards of a try and of one sample, by seed, group and dev task."""
    import pandas as pd

    keys = ["seed", "group", "task"]

    def rewards(params: Params, arm: str) -> pd.Series:
        tables = [
            read_stage(chain, f"{DEV}{arm}").table("episodes").assign(seed=chain.run.seed)
            for chain in tuned_on(params)
        ]
        return pd.concat(tables).set_index(keys)["reward"]

    return pd.DataFrame({"q": rewards(one.params, one.name), "sample": rewards(one.params, BASE)})


def stages(params: Params) -> list[tuple[Params, str]]:
    """The stages of the baselines as far as they are known, and the parameters of each.

    Which settings are played on test tasks is known of the arms that are tried.
    """
    tries = read(params)
    found = [(c, s) for one in tries for c in tuned_on(one.params) for s in _own(c, one, DEV)]
    chosen = _known_best(tries).values()
    return found + [
        (c, s) for one in chosen for c in one.params.each_seed() for s in _own(c, one, EPISODES)
    ]


def _own(chain: Params, one: Try, split: str) -> Sequence[str]:
    stage = f"{split}{one.name}"
    return *(need for need in chain.upstream(stage) if need not in ("data", "agent")), stage


def _known_best(tries: Sequence[Try]) -> dict[str, Try]:
    """The best of what was tried to the end."""
    whole = [o for o in tries if all(is_complete(c, f"{DEV}{o.name}") for c in tuned_on(o.params))]
    return best(whole, tried(whole, {}, _on_dev)) if whole else {}


def is_made(params: Params) -> bool:
    """Whether the best of what was tried is played; a try that failed is not missed."""
    chosen = _known_best(read(params))
    return bool(chosen) and all(
        is_complete(chain, f"{EPISODES}{one.name}")
        for one in chosen.values()
        for chain in one.params.each_seed()
    )


def seconds(params: Params) -> float:
    """Seconds that its stages have taken so far beside the run's own, in all sessions."""
    return seconds_beside(params, stages(params))
