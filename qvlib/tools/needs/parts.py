"""What each part of a run reads and writes, reckoned from the counts of a finished one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import comb

from qvlib.agents.arm import CONTROL, RERANKED, Arm
from qvlib.agents.beam import BEAM
from qvlib.agents.best_first import BEST_FIRST
from qvlib.agents.lats import LATS
from qvlib.agents.reading import SCORED
from qvlib.agents.reflexion import REFLEXION_Q
from qvlib.agents.reranking import TUNED_POLICY
from qvlib.agents.scripted import SCRIPTS
from qvlib.agents.search import SEARCH
from qvlib.base.errors import QvlibError
from qvlib.models.names import SMALL, is_remote
from qvlib.pipeline.params import Params
from qvlib.pipeline.scored import MOST
from qvlib.tools.needs.counts import ALIKE, TRIES, Measured, Work
from qvlib.tools.needs.fitting import fitting, read_of_a_tree
from qvlib.tools.needs.prompts import Lengths

TRIED_BY_Q = (BEAM, BEST_FIRST, REFLEXION_Q)
"""Arms that try in the environment what the Q model scores."""


@dataclass(frozen=True)
class Tokens:
    """One part of a run.

    q: tokens that the Q model and its reference read. who: agent, other_agent, or q_base, which
    trains.
    """

    part: str
    who: str
    tasks: int
    prompts: float = 0.0
    prompt: float = 0.0
    completion: float = 0.0
    q: float = 0.0


def tokens(params: Params, run: Measured, length: Lengths) -> list[Tokens]:
    """What each part of a run reads and writes, all chains and shuffles together."""
    rows = [collecting(params, run, length), training(params, run, length)]
    for arm in params.arms():
        if arm in SCRIPTS:  # no model plays it
            continue
        part, work = f"arm {arm.name}", _arm(arm, run, params)
        tasks = params.evaluation.test_tasks * params.run.seeds * len(arm.names(params))
        if arm is TUNED_POLICY:  # the Q model samples
            sampled = work.prompts * length.prompt + work.replies * length.reply
            rows.append(Tokens(part, "q_base", tasks, q=tasks * sampled))
            continue
        scored = arm.kind in (RERANKED, CONTROL) or arm in (*SCORED, *TRIED_BY_Q)
        # A chat model judges for itself.
        scored = scored or (arm is LATS and params.agent.agent == SMALL)
        rows.append(asked(part, arm.sampled or "agent", tasks, work, length, params, scored))
    rows.append(_scoring(params, length))
    return rows


def collecting(params: Params, run: Measured, length: Lengths) -> Tokens:
    """The searches of training tasks."""
    trees = params.search.rounds * params.search.train_tasks * params.run.seeds
    search = _scaled(run.search, run, params, run.iterations, params.search.iterations)
    return asked("collecting", "agent", trees, search, length, params)


def training(params: Params, run: Measured, length: Lengths, controls: bool = True) -> Tokens:
    """Fitting the Q model, and its controls, see ``fitting``."""
    trees = params.search.rounds * params.search.train_tasks * params.run.seeds
    how = fitting(params)
    shared = how.reads == "features" or not controls
    models = 1 if shared else 1 + params.q_model.control_shuffles
    read = trees * read_of_a_tree(params, run, length) * how.in_all() * models
    return Tokens("training Q and controls", "q_base", round(trees * run.pairs), q=read)


def _scoring(params: Params, length: Lengths) -> Tokens:
    tasks = params.evaluation.test_tasks * params.run.seeds
    return Tokens("scoring pairs", "q_base", tasks, q=read_of_pairs(params, length))


def read_of_pairs(params: Params, length: Lengths) -> float:
    """Scoring pairs of test tasks: at most as many as the trees of the arm ``search`` can give.

    Pairs are of visited siblings, and an iteration visits one node more. The Q model and its
    reference read each state and both actions under its own and under another task's instruction,
    and the agent once, where no server hides what it finds likely.
    """
    tasks = params.evaluation.test_tasks * params.run.seeds
    n = params.search.expand_n
    states, left = divmod(params.search.search_iterations, n)
    pairs = min(MOST * params.run.seeds, tasks * (states * comb(n, 2) + comb(left, 2)))
    passes = 2 * fitting(params).readers + (not is_remote(params.agent.agent))
    return pairs * passes * (length.prompt + 2 * length.action)


def _arm(arm: Arm, run: Measured, params: Params) -> Work:
    """A task of an arm; one that the run had not is as the same arm of its first agent."""
    name = arm.name
    if name not in run.arms and ALIKE.get(name) not in run.arms:
        raise QvlibError(
            f"results {run.name!r} have no arm {name!r}; give other results with --from"
        )
    work = run.arms.get(name) or run.arms[ALIKE[name]]
    if arm is SEARCH:
        return _scaled(work, run, params, run.arm_iterations, params.search.search_iterations)
    if name in TRIES:
        redrawn = 0.0 if params.sampling.filter_actions else work.replies * run.refused
        longer = _longer(name, run.tries[name], work, params)
        return Work(
            work.steps * longer,
            (work.prompts - redrawn) * longer,
            (work.replies - redrawn) * longer,
        )
    steps = min(work.steps, params.world.max_steps)
    if params.sampling.filter_actions:
        return Work(steps, work.prompts * steps / work.steps, work.replies * steps / work.steps)
    return Work(steps, steps, steps * _candidates(name))


def _longer(name: str, tries: int, work: Work, params: Params) -> float:
    """How much more an arm of ``TRIES`` does than in the run, where it tried so much.

    Each try is as long as those of the run, a whole episode within the step limit. Best-first
    search ends by itself, or where its steps are spent.
    """
    wanted = params.flat()[TRIES[name]]
    if name == BEST_FIRST.name:
        return min(1.0, wanted / work.steps)
    within = 1.0 if name == LATS.name else min(1.0, params.world.max_steps * tries / work.steps)
    return wanted / tries * within


def _candidates(name: str) -> int:
    number = re.search(r"_n(\d+)$", name)
    return int(number[1]) if number else 1


def _scaled(work: Work, run: Measured, params: Params, iterations: int, wanted: int) -> Work:
    """A search of other iterations and candidates: ``wanted`` in the place of ``iterations``.

    ``expand_n`` replies at an expansion, one at a step of a rollout. Where the file does not draw
    again what is refused, the run's redraws, each a prompt and a reply, are taken off. Of the trees
    of ``quick`` that gives 65 prompts and 123 replies; their own nodes and proposals count 58 and
    113. Where the file expands leaves at their first visit and the run did not, each iteration
    expands one, and rolls out a step less.
    """
    redrawn = 0.0 if params.sampling.filter_actions else work.replies * run.refused
    prompts, replies = work.prompts - redrawn, work.replies - redrawn
    expansions = (replies - prompts) / (run.expand_n - 1) if run.expand_n > 1 else 0.0
    sooner = params.search.expand_at == "first_visit" != run.expand_at
    more = max(0.0, iterations - expansions) if sooner else 0.0
    n = params.search.expand_n
    longer = wanted / iterations
    return Work(
        work.steps * longer,
        prompts * longer,
        (replies + (n - run.expand_n) * expansions + (n - 1) * more) * longer,
    )


def asked(
    part: str,
    who: str,
    tasks: int,
    work: Work,
    length: Lengths,
    params: Params,
    scored: bool = False,
) -> Tokens:
    """What a part samples, and where it is scored what the Q model and its reference read."""
    each = is_remote(_model(params, who)) and params.server.api_n == "each"
    prompts = tasks * (work.replies if each else work.prompts)
    read = work.prompts * length.prompt + work.replies * length.action
    return Tokens(
        part,
        who,
        tasks,
        prompts,
        prompt=prompts * length.prompt,
        completion=tasks * work.replies * length.reply,
        q=fitting(params).readers * tasks * read if scored else 0.0,
    )


def usd(params: Params, row: Tokens) -> float | None:
    """What a server bills for a part; None where no server does the work or no price is given."""
    priced = params.server.api_price_prompt or params.server.api_price_completion
    if row.who == "q_base" or not is_remote(_model(params, row.who)) or not priced:
        return None
    return (
        row.prompt * params.server.api_price_prompt
        + row.completion * params.server.api_price_completion
    ) / 1e6


def _model(params: Params, who: str) -> str:
    return params.other_agent.other_agent if who == "other_agent" else params.agent.agent
