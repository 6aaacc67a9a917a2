"""What a run has cost: tokens, environment steps, seconds, USD."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from qvlib.agents.arm import Arm
from qvlib.models.names import is_remote
from qvlib.pipeline.curriculum import rankings
from qvlib.pipeline.pairs import each_tree
from qvlib.pipeline.params import ON_DEV, Params
from qvlib.report.numbers.episodes import COSTS
from qvlib.runs.stage import seconds_of

COUNTED = ("tokens", "prompt_tokens", "env_steps")


def cost(params: Params, rows: pd.DataFrame) -> dict[str, float]:
    """Totals of the run: tokens generated and read, environment steps, seconds.

    Of collecting and of evaluating. ``usd``, where a price is given: what servers ask for the
    replies that the run used, whenever they were paid for.

    Args:
        rows: of ``by_task``.
    """
    collected = pd.DataFrame(
        [{k: record.get(k, 0) for k in COSTS} for record in _collected(params)]
    )
    played = rows[list(COSTS)]
    totals: dict[str, float] = {
        f"{part}_{c}": round(float(frame[c].sum()))
        for part, frame in (("collecting", collected), ("evaluating", played))
        for c in COUNTED
    }
    totals |= {c: totals[f"collecting_{c}"] + totals[f"evaluating_{c}"] for c in COUNTED}
    if params.server.api_price_prompt or params.server.api_price_completion:
        asked = [collected] * is_remote(params.agent.agent)
        asked += [_verdicts(params)] * is_remote(params.judge)
        asked += [played[rows["arm"] == arm.name] for arm in params.arms() if served(params, arm)]
        totals["usd"] = sum(_usd(params, frame) for frame in asked) / 1e6
    seconds: dict[str, float] = {}
    for kind, stages in _by_kind(params).items():
        seconds[kind] = round(seconds_of(stages), 3)
    totals |= {f"{kind}_seconds": spent for kind, spent in seconds.items()}
    return totals | {"seconds": round(sum(seconds.values()), 1)}


def _verdicts(params: Params) -> pd.DataFrame:
    """Tokens of a model's verdicts while collecting, a row for each record."""
    names = {"prompt_tokens": "verdict_prompt_tokens", "tokens": "verdict_tokens"}
    records = _collected(params)
    return pd.DataFrame(
        [{name: record.get(told, 0) for name, told in names.items()} for record in records]
    )


def _collected(params: Params) -> Iterator[dict[str, Any]]:
    """The records of collecting: trees, and the episodes by which a curriculum has ranked."""
    for chain in params.each_seed():
        yield from each_tree(chain)
        yield from rankings(chain)


def _by_kind(params: Params) -> dict[str, list[tuple[Params, str]]]:
    """Kind of stage -> the stages of all chains and rounds, each once; arms are played together."""
    kinds: dict[str, dict[str, tuple[Params, str]]] = {}
    for chain in params.each_seed():
        for made_with, stage in chain.every_stage():
            if stage not in ON_DEV:
                kind = stage.partition("/")[0]
                kinds.setdefault(kind, {})[made_with.digest(stage)] = made_with, stage
    return {kind: list(stages.values()) for kind, stages in kinds.items()}


def served(params: Params, arm: Arm) -> bool:
    """Whether a server proposes the actions of an arm."""
    models = {"agent": params.agent.agent, "other_agent": params.other_agent.other_agent}
    return is_remote(models.get(arm.sampled, ""))


def _usd(params: Params, asked: pd.DataFrame) -> float:
    """What a server asks for replies, in millionths of a USD."""
    return (
        float(asked["prompt_tokens"].sum()) * params.server.api_price_prompt
        + float(asked["tokens"].sum()) * params.server.api_price_completion
    )
