"""What estimators are tuned by: a few settings of each, as many of one as of another, on dev tasks.

They are the lines of the file that the parameter ``compare`` names: ``name: [{parameter: value,
...}, ...]``, where the name is an estimator's, ``published``, or one's own beside ``estimator``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qvlib.agents.arms import BASE, arms_of
from qvlib.base.errors import QvlibError
from qvlib.base.paths import resolve
from qvlib.base.yaml_text import read_mapping
from qvlib.core.statistics import mean_interval
from qvlib.pipeline.grids import labelled
from qvlib.pipeline.params import EPISODES, AblationSettings, Params, RunSettings, make
from qvlib.runs.stage import read_stage

if TYPE_CHECKING:
    import pandas as pd

N = 5
"""Candidates of a step, on dev tasks as in the arms that are played on test tasks."""
PUBLISHED = "published"
"""The name of step-level DPO on the published pairs, which has the settings below."""
PUBLISHED_FORM = {
    "estimator": "step_dpo",
    "pairs": "best_path",
    "min_margin": 0.0,
    "min_visits": 0,
    "discount": 1.0,
}
"""arXiv 2409.09345 and its code, as in params/paper/. The discount gives it trees of its own."""
_OF_THE_RUN = {*RunSettings.names(), *AblationSettings.names(), "control_shuffles"}


@dataclass(frozen=True)
class Try:
    """Settings of an estimator that are tried.

    name: what the estimator is called here. label: what is set, in words; change: by the names of
    the parameters. params: the whole run's.
    """

    name: str
    label: str
    params: Params
    change: Mapping[str, Any] = field(default_factory=dict, compare=False)


def read(params: Params) -> list[Try]:
    """The tries that the file of the parameter ``compare`` has, in its order.

    Raises:
        QvlibError: no such file, not of that form, other numbers of tries, the same try twice, a
            parameter that is refused, or one that changes the agent or the tasks.
    """
    file = params.ablations.compare
    form = "a mapping `estimator: [{parameter: value, ...}, ...]`"
    lines = read_mapping(resolve(file), file, "comparison", form, "params/grids/")
    if not lines:
        raise QvlibError(f"{file}: names no estimator; a comparison is {form}")
    if len({str(name) for name in lines}) < len(lines):
        raise QvlibError(f"{file}: two lines have the same name; rename one")
    tries = [one for name, settings in lines.items() for one in _tries(params, str(name), settings)]
    counts = {str(name): len(settings) for name, settings in lines.items()}
    most, fewest = (pick(counts, key=counts.__getitem__) for pick in (max, min))
    if counts[most] != counts[fewest]:
        raise QvlibError(
            f"{file}: tries {most} with {counts[most]} settings and {fewest} with "
            f"{counts[fewest]}; give each as many, or more tuning is what wins"
        )
    return tries


def _tries(params: Params, name: str, settings: Any) -> Iterator[Try]:
    file = params.ablations.compare
    if not (isinstance(settings, list) and settings and all(isinstance(s, dict) for s in settings)):
        raise QvlibError(f"{file}: {name!r:.60} is no list of {{parameter: value, ...}}")
    base = plain(params).replace(trial_n=N, trial_temperature=0.0)
    form = PUBLISHED_FORM if name == PUBLISHED else {"estimator": name}
    seen: set[str] = set()
    labels: set[str] = set()
    for change in settings:
        source = f"{file}, {name}"
        if taken := [key for key in change if key in _OF_THE_RUN]:
            raise QvlibError(
                f"{source}: {taken[0]} is the whole run's; set it in the parameter file, not here"
            )
        if fixed := [key for key in change if key in form and name == PUBLISHED]:
            raise QvlibError(
                f"{source}: {fixed[0]} is part of the published form; call the line otherwise"
            )
        changed = base.changed({**form, **change}, source)
        if changed.digest(f"{EPISODES}{BASE}") != base.digest(f"{EPISODES}{BASE}"):
            raise QvlibError(
                f"{source}: {', '.join(change)} changes the agent, its sampling or the test tasks; "
                "estimators are compared on those of the run"
            )
        if (digest := changed.digest("trial")) in seen:
            raise QvlibError(f"{source}: the same settings twice; leave one out")
        seen.add(digest)
        if (label := labelled(change) or "as it is") in labels:
            raise QvlibError(f"{source}: {label!r} twice, to six digits; set them further apart")
        labels.add(label)
        yield Try(name, label, changed, change)


def plain(params: Params) -> Params:
    """The run less the settings of arms: what has any is not played here, some refuse a score."""
    arms = arms_of(params.evaluation.extra_arms)
    of_arms = {name for arm in arms if arm.settings for name in arm.settings.names()}
    return make({name: value for name, value in params.given.items() if name not in of_arms})


def tuned_on(params: Params) -> list[Params]:
    """The chains whose trials choose the settings."""
    chains = params.each_seed()
    return chains if params.ablations.compare_chains == "all" else chains[:1]


def tried(
    tries: Iterable[Try],
    failed: Mapping[tuple[str, str], str],
    played_by: Callable[[Try], pd.DataFrame] | None = None,
) -> pd.DataFrame:
    """One row a try: ``estimator``, ``choice``, mean ``reward`` on dev tasks, and paired ``gain``
    over one sample with ``low`` and ``high``, 95 % over groups (and chains).

    ``chosen`` is the best of its estimator by reward, the first of equals. A try that failed has no
    numbers and says why under ``failed``. failed: (name, label) -> why. played_by: a try's rewards
    as ``trials`` has them, its default.
    """
    import pandas as pd

    rows = []
    for one in tries:
        row: dict[str, Any] = {"estimator": one.name, "choice": one.label, "failed": ""}
        if why := failed.get((one.name, one.label)):
            numbers = dict.fromkeys(("reward", "gain", "low", "high"), float("nan"))
            rows.append(row | numbers | {"tasks": 0, "failed": why})
            continue
        played = played_by(one) if played_by else trials(one.params)
        groups, chains = (played.index.get_level_values(name) for name in ("group", "seed"))
        told = mean_interval(
            played["q"] - played["sample"], groups, one.params.run.bootstrap, chains
        )
        row |= {
            "reward": played["q"].mean(),
            **dict(zip(("gain", "low", "high"), told, strict=True)),
        }
        rows.append(row | {"tasks": played.index.get_level_values("task").nunique()})
    table = pd.DataFrame(rows)
    best = table.loc[table["failed"] == ""].groupby("estimator")["reward"].idxmax()
    return table.assign(chosen=table.index.isin(best))


def trials(params: Params) -> pd.DataFrame:
    """Rewards of a try's ``q`` and ``sample`` by seed, group and dev task, of the chains tried."""
    import pandas as pd

    tables = [
        read_stage(chain, "trial").table("episodes").assign(seed=chain.run.seed)
        for chain in tuned_on(params)
    ]
    keys = ["seed", "group", "task"]
    return pd.concat(tables).pivot(index=keys, columns="arm", values="reward")


def best(tries: Iterable[Try], table: pd.DataFrame) -> dict[str, Try]:
    """Name -> the chosen try. table: of ``tried``."""
    rows = table.loc[table["chosen"], ["estimator", "choice"]]
    known = set(rows.itertuples(index=False, name=None))
    return {one.name: one for one in tries if (one.name, one.label) in known}


def at_end(one: Try, tries: Iterable[Try]) -> list[str]:
    """The numbers of a chosen try that are the greatest or the least tried of its estimator.

    What is beyond was not tried: the estimator may earn more there. tries: of ``read``.
    """
    of_one = [other.change for other in tries if other.name == one.name]
    found = []
    for name, value in one.change.items():
        tried = {change[name] for change in of_one if name in change}
        numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in tried)
        if numeric and len(tried) > 2 and value in (min(tried), max(tried)):
            found.append(name)
    return found
