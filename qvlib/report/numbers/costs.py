"""What a run has cost: tokens, environment steps, seconds, USD."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from qvlib.models.names import is_remote
from qvlib.pipeline.params import Params
from qvlib.report.numbers.episodes import COSTS, SECOND, SECOND_Q
from qvlib.report.numbers.origins import stage_table
from qvlib.report.numbers.pairs import trees

COUNTED = ("tokens", "prompt_tokens", "env_steps")


def cost(params: Params, rows: pd.DataFrame) -> dict[str, float]:
    """Totals of the run: tokens generated and read, environment steps, seconds.

    Of collecting and of evaluating. ``usd``, where a price is given: what servers ask for the
    replies that the run used, whenever they were paid for.

    Args:
        rows: of ``by_task``.
    """
    collected = pd.DataFrame(
        [{k: tree.get(k, 0) for k in COSTS} for c in params.each_seed() for tree in trees(c)]
    )
    played = rows[list(COSTS)].mul(rows["shuffles"], axis=0)
    totals: dict[str, float] = {
        f"{part}_{c}": round(float(frame[c].sum()))
        for part, frame in (("collecting", collected), ("evaluating", played))
        for c in COUNTED
    }
    totals |= {c: totals[f"collecting_{c}"] + totals[f"evaluating_{c}"] for c in COUNTED}
    if params.api_price_prompt or params.api_price_completion:
        asked = [collected] * is_remote(params.agent) + [
            played[rows["arm"].isin(arms)]
            for arms, model in _sampled_by(params, rows["arm"].unique())
            if is_remote(model)
        ]
        totals["usd"] = sum(_usd(params, frame) for frame in asked) / 1e6
    seconds = (
        stage_table(params)
        .drop_duplicates(["stage", "digest"])
        .groupby("stage", sort=False)["seconds"]
        .sum()
    )
    totals |= {f"{stage}_seconds": float(s) for stage, s in seconds.items()}
    return totals | {"seconds": round(float(seconds.sum()), 1)}


def _usd(params: Params, asked: pd.DataFrame) -> float:
    """What a server asks for replies, in millionths of a USD."""
    return (
        float(asked["prompt_tokens"].sum()) * params.api_price_prompt
        + float(asked["tokens"].sum()) * params.api_price_completion
    )


def _sampled_by(params: Params, arms: Sequence[str]) -> list[tuple[list[str], str]]:
    """(arms, the model that is sampled in them); the tuned ones are local."""
    second = [arm for arm in arms if arm in (SECOND, SECOND_Q)]
    return [
        ([arm for arm in arms if arm not in (*second, "tuned_policy", "rft")], params.agent),
        (second, params.other_agent),
    ]
