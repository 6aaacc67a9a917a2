"""The stage of the search trees, in one round of collecting or several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from tqdm.auto import tqdm

from qvlib.agents.disagreement import Hopeful
from qvlib.agents.novelty import NONE_SEEN, pages_seen
from qvlib.agents.search import search_config, selection
from qvlib.agents.verdicts import Verdicts
from qvlib.base.executors.processes import slices
from qvlib.core.lockstep import lockstep
from qvlib.core.mcts import search
from qvlib.core.reranker import Reranked
from qvlib.core.trees import tree_record
from qvlib.core.types import Agent, Task
from qvlib.pipeline.context import Context, before, chains, context_of
from qvlib.pipeline.curriculum import ranked
from qvlib.pipeline.data import data_folders
from qvlib.pipeline.pairs import each_tree, make_chain_pairs
from qvlib.pipeline.params import Params
from qvlib.pipeline.q import fit
from qvlib.pipeline.work import part_count, workers
from qvlib.runs.stage import Stage, is_complete, open_stage, read_stage, stage_path

STREAM = ""  # of random draws: no task has two uses, so that no other draws share their keys


def collect(run: Params | Context) -> Stage:
    """Search the training tasks of each chain: ``trees.jsonl``, a tree a line, ``trees.parquet``.

    Rounds before this one, and the Q model that guides it, are made first where they are missing.
    A curriculum ranks the tasks first: ``ranked.parquet``. Gives the first chain's trees.
    """
    context = context_of(run)
    for chain in chains(context):
        collect_chain(chain)
    return read_stage(context.params.each_seed()[0], "trees")


def collect_chain(context: Context) -> None:
    """The trees of one chain."""
    params = context.params
    if is_complete(params, "trees"):
        return
    folders = [*data_folders(params), stage_path(params, "agent")]
    if params.search.rounds > 1:
        earlier = before(context)
        collect_chain(earlier)
        make_chain_pairs(earlier)
        guides = ("q_model", *(["critics"] if params.collecting.disagreement_weight else []))
        fit([(earlier, stage) for stage in guides])
        folders += [stage_path(earlier.params, stage) for stage in guides]
        folders += [stage_path(each, "trees") for each in earlier.params.each_round()]
    with ExitStack() as stack:
        stage = stack.enter_context(open_stage(params, "trees"))
        if stage.complete:
            return
        executor = stack.enter_context(workers(params))
        executor.place(folders)
        dealt = context.uses.search
        tasks = ranked(context, stage, executor, collector) if params.pool else dealt
        done = stage.done("trees")
        todo = [task for task in tasks if task.id not in done]
        parts = [(context, part) for part in slices(todo, part_count(executor, params))]
        bar = tqdm(total=len(tasks), initial=len(done), desc=_title(params), unit="task")
        with bar:
            for record in executor.stream(_search, parts, key=lambda record: record["task"]):
                stage.append("trees", {"run": stage.path.name, **record})
                bar.update()
        stage.to_parquet("trees", ["task", "node"], explode="nodes")
        stage.finish(tasks=len(tasks), **_verdicts(stage))


def _title(params: Params) -> str:
    number = params.search.rounds
    return "searching" if number == 1 else f"searching, round {number}"


def _search(context: Context, tasks: Sequence[Task]) -> Iterator[dict[str, Any]]:
    """Search tasks; yields their trees as records."""
    params = context.params
    config, select = search_config(params.search), selection(params.search, seen(context))
    agent, judges = (
        context.judging(collector(context)),
        {task.id: context.judge() for task in tasks},
    )
    jobs = (
        search(
            context.environment,
            task,
            config,
            params.run.seed,
            select=select,
            judge=judges[task.id],
            stream=STREAM,
        )
        for task in tasks
    )
    for tree in lockstep(jobs, agent, params.run.batch_size):
        judge = judges[tree.task.id]
        yield tree_record(tree) | (judge.record() if judge else {})


def seen(context: Context) -> Mapping[str, int]:
    """Visits of pages in the trees of earlier rounds, where selection asks for them."""
    earlier = context.params.each_round()[:-1]
    if context.params.search.uct != "novelty" or not earlier:
        return NONE_SEEN
    return pages_seen(each_tree(earlier[-1]))


def _verdicts(stage: Stage) -> dict[str, Any]:
    """What a model's verdicts came to, where they were the rewards."""
    counts: Counter[str] = Counter()
    for record in stage.each("trees"):
        counts.update({name: record[name] for name in Verdicts().record() if name in record})
    return dict(counts)


def collector(context: Context) -> Agent:
    """Who is searched with: the agent; in a later round what it would execute by Q.

    Drawn softly from twice ``expand_n`` candidates, so that children differ. With a
    ``disagreement_weight`` what the critics of the round before disagree about is drawn more often.
    """
    agent, settings, how = context.sampler(), context.params.search, context.params.collecting
    if settings.rounds == 1:
        return agent
    earlier = before(context)
    q_model = earlier.q_model()
    if how.disagreement_weight:
        critics = [earlier.critic(number) for number in range(how.critics)]
        q_model = Hopeful(q_model, critics, how.disagreement_weight)
    return Reranked(agent, q_model, 2 * settings.expand_n, temperature=1.0)
