"""Trainings of a tiny model that a launcher runs in several processes: ``two_processes.py FOLDER``.

Each process writes its curves.
"""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import torch
from toy import small_lm, states

from qvlib.base.executors.processes import rank
from qvlib.estimators import step_dpo_trl as trl_training
from qvlib.estimators.data import PairIds

SETTINGS = {"beta": 0.1, "lr": 3e-3, "batch": 8, "rule": "sum", "seed": 0}
CASES = {  # pairs, epochs, rank of the LoRA; 45 pairs leave a last batch of 5
    "full": (48, 2, 0),
    "lora": (48, 1, 4),
    "uneven": (45, 1, 0),
}


def pairs(lm, count: int, seed: int) -> list[PairIds]:
    """Pairs with a taste that can be learnt: items are better than going back."""
    shops = states(count, seed)
    return [
        PairIds(
            ids,
            lm.action_ids(prompt, shop.admissible[2 + i % 3]),
            lm.action_ids(prompt, shop.admissible[1]),
        )
        for i, ((prompt, ids), shop) in enumerate(zip(lm.prompts(shops), shops, strict=True))
    ]


def train(folder: Path, case: str) -> tuple[Any, list[dict[str, float]]]:
    """The policy and the curve of a case, by as many processes as there are."""
    count, epochs, lora_rank = CASES[case]
    lm = small_lm()
    torch.manual_seed(0)  # what a LoRA starts from
    return trl_training.train(
        lm,
        pairs(lm, count, 2),
        pairs(lm, 13, 3),
        **SETTINGS,
        epochs=epochs,
        lora_rank=lora_rank,
        folder=folder / case,
    )


def resumed(folder: Path) -> tuple[Any, list[dict[str, float]]]:
    """``train`` of the case "full", stopped in its second epoch and begun again."""

    def stops(self, args, state, control, **_):
        if state.global_step == 9:
            raise KeyboardInterrupt

    going, trl_training.Bar.on_step_end = trl_training.Bar.on_step_end, stops
    with contextlib.suppress(KeyboardInterrupt):
        train(folder, "full")
    trl_training.Bar.on_step_end = going
    return train(folder, "full")


if __name__ == "__main__":
    made = {case: train(Path(sys.argv[1]), case) for case in CASES} | {
        "resumed": resumed(Path(sys.argv[1]) / "resumed")
    }
    number, _ = rank()
    weights = {
        case: [float(p.detach().abs().sum()) for p in policy.model.parameters()]
        for case, (policy, _) in made.items()
    }
    file = Path(sys.argv[1]) / f"rank{number}.json"
    file.write_text(
        json.dumps(
            {"curves": {case: curve for case, (_, curve) in made.items()}, "weights": weights}
        )
    )
    torch.distributed.destroy_process_group()
