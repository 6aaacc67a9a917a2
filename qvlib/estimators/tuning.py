"""Tuning a policy in the plain loop: what it is handed, its facts, its card."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from qvlib.base.errors import QvlibError
from qvlib.base.executors.processes import rank
from qvlib.estimators.estimator import Card, Fitted, Problem
from qvlib.estimators.tuned import TunedSettings

if TYPE_CHECKING:
    from qvlib.models.local import LocalModel


def fit_by_loop(
    problem: Problem,
    settings: TunedSettings,
    rows: Sequence[Any],
    held_out: Sequence[Any],
    method: str,
    **loop: Any,
) -> Fitted:
    """Tune a copy of the reference in full on the rows that fit its context; others are dropped.

    rows, held_out, loop (``loss``, ``log_probs``, ``terms``): as ``step_dpo_loop.train`` takes
    them. method: for the card.

    Raises:
        QvlibError: no row fits, training diverged, or a launcher started several processes.
    """
    from qvlib.estimators.data import packs, some_fit
    from qvlib.estimators.step_dpo_loop import train

    if rank()[1] > 1:
        raise QvlibError(f"{method} is trained in one process alone; start it without a launcher")
    lm = problem.reference
    used = some_fit(lm, rows, held_out)
    pairs = "log_probs" not in loop
    packed = pairs and packs(lm.model, [*used[0], *used[1]], lm.end)
    tuned, curve = train(lm, *used, **options(problem, settings), packed=packed, **loop)
    facts = facts_of(problem, settings, tuned, curve, (rows, held_out), used)
    if pairs and not packed:
        facts["packed"] = False
    return Fitted(tuned.save, curve, facts, card(settings, facts, method))


def options(problem: Problem, settings: TunedSettings) -> dict[str, Any]:
    """What both trainers take of a problem and its settings."""
    return {
        "beta": settings.beta,
        "lr": settings.dpo_lr,
        "epochs": settings.dpo_epochs,
        "batch": settings.dpo_batch,
        "rule": settings.log_prob,
        "seed": problem.seed,
        "schedule": settings.dpo_schedule,
        "label": problem.label,
        "folder": problem.scratch,
    }


def facts_of(
    problem: Problem,
    settings: TunedSettings,
    tuned: LocalModel,
    curve: Sequence[dict[str, Any]],
    given: tuple[Sequence[Any], Sequence[Any]],
    used: tuple[Sequence[Any], Sequence[Any]],
) -> dict[str, Any]:
    """The facts of ``Fitted``; given, used: (rows trained on, rows held out)."""
    from qvlib.estimators.data import ordered_by_task
    from qvlib.estimators.log_ratio import LogRatio

    judged = [row for row in curve if row["split"] == "held-out"]
    scorer = LogRatio(tuned, problem.reference, settings.log_prob)
    return {
        "pairs": len(used[0]),
        "held_out_pairs": len(used[1]),
        "held_out_by_task": ordered_by_task(problem, scorer),
        "held_out_accuracy": judged[-1]["accuracy"] if judged else None,
        "dropped_pairs": len(given[0]) - len(used[0]),
        "dropped_held_out_pairs": len(given[1]) - len(used[1]),
    }


def card(settings: TunedSettings, facts: dict[str, Any], method: str, lora_rank: int = 0) -> Card:
    """The card of a tuned policy; method: what it was trained by, with its own settings."""
    epochs = f"{settings.dpo_epochs} epochs of {facts['pairs']} pairs"
    if facts["dropped_pairs"]:
        epochs += f" ({facts['dropped_pairs']} longer than its context were dropped)"
    how = f"LoRA of rank {lora_rank}" if lora_rank else "full fine-tuning"
    if not facts.get("packed", True):
        how += ", each action in a pass of its own"
    reference = "the base without this adapter" if lora_rank else "the base"
    return Card(
        library="peft" if lora_rank else "transformers",
        tags=("dpo", "step-level-q-value"),
        score=(
            "Q(u, history, action) = log pi(action) - log pi_ref(action) in nats, "
            f"{settings.log_prob} over the action's tokens, end token included;\n"
            f"pi is this model, pi_ref {reference}. It ranks the actions of one state and compares "
            "no two states. It is not made to be sampled from."
        ),
        recipe=f"{method}, rate {settings.dpo_lr:g}, {epochs}, {how}",
    )
