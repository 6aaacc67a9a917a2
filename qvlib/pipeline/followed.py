"""The stage that scores what the agent sampled on test tasks, beside what its episodes earned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tqdm.auto import tqdm

from qvlib.agents.arms import BASE
from qvlib.base.executors.processes import slices
from qvlib.core.episodes import replay
from qvlib.core.types import Task
from qvlib.pipeline.context import Context
from qvlib.pipeline.data import data_folders
from qvlib.pipeline.params import EPISODES
from qvlib.pipeline.scored import Rows, drawn
from qvlib.pipeline.work import part_count, workers
from qvlib.runs.stage import is_complete, open_stage, read_stage, stage_path

STAGE, MOST = "followed", 1000
"""Actions of a chain that are scored: a hundred for each of ten bins."""


def score_followed(context: Context) -> None:
    """Score a sample of the actions of the arm ``sample``: ``actions.parquet``, a row an action.

    No score chose among them, so that none is favoured, and all that the agent does is there, not
    only what a search could tell apart. Columns: ``task``, ``group``, ``depth``, ``action``,
    ``score`` (Q), ``reward`` of the episode's end, in [0, 1] (0 if cut off), and ``left``, the
    steps from the action's next state to that end. One chain; what is finished is found again.
    """
    params = context.params
    if is_complete(params, STAGE):
        return
    with open_stage(params, STAGE) as stage:
        if stage.complete:
            return
        played = read_stage(params, f"{EPISODES}{BASE}").each("episodes", ["task"], ["actions"])
        of_task = drawn(
            ((e["task"], steps(e)) for e in played), MOST, params.run.seed, "followed actions"
        )
        done = stage.done("actions")
        todo = [(t, of_task[t.id]) for t in context.uses.test if t.id in of_task.keys() - done]
        needs = [s for s in params.upstream(STAGE) if s not in ("data", f"{EPISODES}{BASE}")]
        with workers(params) as executor:
            executor.place([*data_folders(params), *(stage_path(params, s) for s in needs)])
            parts = [(context, part) for part in slices(todo, part_count(executor, params))]
            bar = tqdm(total=len(of_task), initial=len(done), desc="scoring actions", unit="task")
            with bar:
                for record in executor.stream(_scored, parts, key=lambda record: record["task"]):
                    stage.append("actions", record)
                    bar.update()
        stage.to_parquet("actions", ["task", "depth"], explode="actions")
        stage.finish(actions=sum(map(len, of_task.values())), tasks=len(of_task))


def steps(episode: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The actions of an episode's record, each with its path and what followed."""
    actions, last = episode["actions"], len(episode["actions"]) - 1
    return [
        {
            "path": actions[:depth],
            "action": action,
            "reward": episode["reward"],
            "left": last - depth,
        }
        for depth, action in enumerate(actions)
    ]


def _scored(context: Context, tasks: Sequence[tuple[Task, Rows]]) -> Iterator[dict[str, Any]]:
    """Score the actions of tasks, some tasks at a time; yields a record a task."""
    q_model, width = context.q_model(), context.params.run.batch_size
    for start in range(0, len(tasks), width):
        part = tasks[start : start + width]
        rows = [(task, row) for task, steps in part for row in steps]
        states = [replay(context.environment, task, row["path"]) for task, row in rows]
        scores = iter(q_model.score(states, [[row["action"]] for _, row in rows]))
        for task, steps in part:
            scored = [_row(row, next(scores)[0]) for row in steps]
            yield {"task": task.id, "group": task.group, "actions": scored}


def _row(step: Mapping[str, Any], score: float) -> dict[str, Any]:
    kept = {key: step[key] for key in ("action", "reward", "left")}
    return {"depth": len(step["path"]), **kept, "score": score}
