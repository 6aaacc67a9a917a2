"""The stage that asks what Q orders rightly: pairs of test tasks, scored in three ways."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tqdm.auto import tqdm

from qvlib.agents.reading import Foreign
from qvlib.base.executors.processes import slices
from qvlib.base.files import hash_of
from qvlib.base.seeding import generator
from qvlib.core.episodes import replay
from qvlib.core.types import QModel, State, Task
from qvlib.models.names import is_remote
from qvlib.pipeline.context import Context, chains, context_of
from qvlib.pipeline.data import data_folders
from qvlib.pipeline.params import Params
from qvlib.pipeline.work import part_count, workers
from qvlib.runs.stage import Stage, is_complete, open_stage, read_stage, stage_path

MOST = 2000
"""Pairs of a chain that are scored: enough for each common kind."""

Rows = Sequence[Mapping[str, Any]]
"""Pairs of a task, as ``agents.search.siblings`` gives them."""


def score_pairs(run: Params | Context) -> Stage:
    """Score a sample of each chain's pairs of test tasks: ``pairs.parquet``, a row a pair.

    The pairs are the siblings of the trees of the arm ``search``; no Q model was trained on their
    tasks. Columns: ``task``, ``group``, ``depth``, both actions, ``margin`` of the search's values
    and the ``kind`` of each action, and how much higher the chosen one is by ``own`` (Q),
    ``foreign`` (Q under another task's instruction) and ``log_pi`` (the agent's own
    log-probability, nats; None where a server does not tell it). ``value`` and ``q`` are those of
    the chosen action itself. Gives the first chain's.
    """
    context = context_of(run)
    for chain in chains(context):
        score_chain(chain)
    return read_stage(context.params.each_seed()[0], "scored")


@dataclass(frozen=True)
class Judged:
    """One chain's Q model on the pairs of another parameter set: what ``open_stage`` wants to know.

    Both have the same agent and test tasks. Where both searches are alike, the stage is the chain's
    own ``scored``.
    """

    chain: Params
    searched: Params

    @property
    def run(self) -> Any:
        """The section that names the folder of runs."""
        return self.chain.run

    def deciding(self, stage: str) -> dict[str, dict[str, Any]]:
        """All parameters that decide the stage, by the stage they belong to."""
        own, searched = self.chain.deciding(stage), self.searched.deciding(stage)
        return own | {"episodes/search": searched["episodes/search"]}

    def digest(self, stage: str) -> str:
        """Eight hex digits of those."""
        return hash_of(self.deciding(stage), 4)

    def flat(self) -> dict[str, Any]:
        """Every parameter of the chain."""
        return self.chain.flat()

    def every_stage(self) -> list[tuple[Judged, str]]:
        """The one stage that there is."""
        return [(self, "scored")]

    def each_seed(self) -> list[Judged]:
        """It is one chain."""
        return [self]


def score_chain(context: Context, searched: Params | None = None) -> None:
    """``score_pairs`` of one chain; of the pairs that ``searched`` found, where that is given."""
    params = context.params
    made_with = Judged(params, searched or params)
    if is_complete(made_with, "scored"):
        return
    with open_stage(made_with, "scored") as stage:
        if stage.complete:
            return
        searches = read_stage(made_with.searched, "episodes/search")
        episodes = searches.each("episodes", ["task"], ["pairs"])
        of_task = drawn(((e["task"], e["pairs"]) for e in episodes), MOST, params.run.seed)
        done = stage.done("pairs")
        todo = [(t, of_task[t.id]) for t in context.uses.test if t.id in of_task.keys() - done]
        needs = [s for s in params.upstream("scored") if s not in ("data", "episodes/search")]
        with workers(params) as executor:
            executor.place([*data_folders(params), *(stage_path(params, s) for s in needs)])
            parts = [(context, part) for part in slices(todo, part_count(executor, params))]
            bar = tqdm(total=len(of_task), initial=len(done), desc="scoring pairs", unit="task")
            with bar:
                for record in executor.stream(_scored, parts, key=lambda record: record["task"]):
                    stage.append("pairs", record)
                    bar.update()
        stage.to_parquet("pairs", ["task"], explode="pairs")
        stage.finish(pairs=sum(map(len, of_task.values())), tasks=len(of_task))


def drawn(
    tasks: Iterator[tuple[str, Rows]], most: int, seed: int, what: str = "scored pairs"
) -> dict[str, list[Mapping[str, Any]]]:
    """At most so many of all pairs, each as likely as another; by task, none without a pair.

    tasks: (id, pairs) in an order that no run changes. what: they are, where it is no pairs.
    """
    pairs = [(task, pair) for task, rows in tasks for pair in rows]
    if len(pairs) > most:
        chosen = generator(seed, what).choice(len(pairs), most, replace=False)
        pairs = [pairs[i] for i in sorted(chosen)]
    of_task: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for task, pair in pairs:
        of_task[task].append(pair)
    return dict(of_task)


def _scored(context: Context, tasks: Sequence[tuple[Task, Rows]]) -> Iterator[dict[str, Any]]:
    """Score the pairs of tasks, some tasks at a time; yields a record a task."""
    ways = scorers(context)
    for start in range(0, len(tasks), context.params.run.batch_size):
        yield from score_tasks(context, ways, tasks[start : start + context.params.run.batch_size])


def scorers(context: Context) -> dict[str, QModel | None]:
    """The ways to score an action; None of what is not told."""
    # Imported late: a run behind a server needs no torch for it.
    from qvlib.estimators.log_ratio import LogProb

    params, q_model = context.params, context.q_model()
    served = is_remote(params.agent.agent)
    # The reference of a Q model is the agent's own model where no other is named, in the Q model's
    # precision, and remembers what it has scored.
    agent = context.model if params.q_model.q_base else context.reference
    foreign = Foreign(q_model, context.uses.test, params.run.seed)
    return {
        "own": q_model,
        "foreign": foreign if foreign.has_another else None,
        "log_pi": None if served else LogProb(agent()),
    }


def score_tasks(
    context: Any, ways: Mapping[str, QModel | None], tasks: Sequence[tuple[Task, Rows]]
) -> Iterator[dict[str, Any]]:
    """Records of tasks with their pairs scored; each state is rebuilt and scored once.

    context: its ``environment`` and ``world`` are looked at.
    """
    actions: dict[tuple[str, tuple[str, ...]], dict[str, None]] = defaultdict(dict)
    states: dict[tuple[str, tuple[str, ...]], State] = {}
    for task, rows in tasks:
        for row in rows:
            key = task.id, tuple(row["path"])
            if key not in states:
                states[key] = replay(context.environment, task, key[1])
            actions[key] |= dict.fromkeys((row["chosen"], row["rejected"]))
    candidates = [list(actions[key]) for key in states]
    scores = {way: _by_action(q, states, candidates) for way, q in ways.items() if q is not None}
    for task, rows in tasks:
        yield {
            "task": task.id,
            "group": task.group,
            "pairs": [
                _row(context.world.kind, row, states[key], key, ways, scores)
                for row in rows
                for key in [(task.id, tuple(row["path"]))]
            ],
        }


def _by_action(
    q_model: QModel, states: Mapping[Any, State], candidates: Sequence[Sequence[str]]
) -> dict[Any, dict[str, float]]:
    scored = q_model.score(list(states.values()), candidates)
    return {
        key: dict(zip(actions, values, strict=True))
        for key, actions, values in zip(states, candidates, scored, strict=True)
    }


def _row(
    kind: Any,
    pair: Mapping[str, Any],
    state: State,
    key: Any,
    ways: Mapping[str, Any],
    scores: Mapping[str, Mapping[Any, Mapping[str, float]]],
) -> dict[str, Any]:
    chosen, rejected = pair["chosen"], pair["rejected"]
    return {
        "depth": len(pair["path"]),
        "chosen": chosen,
        "rejected": rejected,
        "margin": pair["chosen_value"] - pair["rejected_value"],
        "chosen_kind": kind(state, chosen),
        "rejected_kind": kind(state, rejected),
        **{
            way: scores[way][key][chosen] - scores[way][key][rejected] if way in scores else None
            for way in ways
        },
        "value": pair["chosen_value"],
        "q": scores["own"][key][chosen] if "own" in scores else None,
    }
