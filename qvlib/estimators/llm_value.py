"""A chat model is asked how likely an action is to lead to success: prompting, no training.

It reads the agent's conversation and the action, and is asked whether the task will be completed.
The score is the probability of Yes against No as the answer's word, or the number it replies. What
is asked is the reference: the run's agent, or ``q_base``. Nothing is fitted, so that a control is
the Q model itself, and its gain is no null.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from qvlib.base.errors import QvlibError
from qvlib.base.files import write_json
from qvlib.base.settings import Settings, setting
from qvlib.core.episodes import replay
from qvlib.core.types import QModel
from qvlib.estimators.estimator import Card, Estimator, Fitted, OpenModel, Problem

if TYPE_CHECKING:
    from qvlib.models.asking import Number, Words


class LlmValueSettings(Settings):
    """How a language model is asked for a value."""

    stage: ClassVar[str | None] = "q_model"

    llm_answer: Literal["words", "number"] = setting(
        "words",
        "words = the probability of Yes against No; number = from 0 to 100, replied greedily: a "
        "model behind a server tells no probabilities",
    )


def asker(reference: Any, settings: LlmValueSettings) -> Words | Number:
    """The scorer that asks a model.

    Raises:
        QvlibError: the model cannot be asked, or not so.
    """
    from qvlib.models.asking import Number, Words
    from qvlib.models.chat import Chat
    from qvlib.models.remote import RemoteModel

    if not isinstance(reference.style, Chat):
        raise QvlibError(
            "estimator llm_value asks a model in words, and a small cloned one knows actions "
            "alone; set q_base to a chat model, such as smollm2, or take another estimator"
        )
    if settings.llm_answer == "number":
        return Number(reference)
    if isinstance(reference, RemoteModel):
        raise QvlibError(
            "llm_answer: words needs probabilities, which a model behind a server does not tell; "
            "set llm_answer to number"
        )
    return Words(reference)


def fit(problem: Problem, settings: LlmValueSettings) -> Fitted:
    """Ask about the held-out pairs; ``unread`` of the facts counts replies without a number.

    Raises:
        QvlibError: as ``asker``, or a pair is of no training task.
    """
    from qvlib.estimators.data import counted, training_task

    scorer, held_out = asker(problem.reference, settings), problem.held_out
    task_of = training_task(problem.environment, "pair")
    states = [replay(problem.environment, task_of(pair.task), pair.path) for pair in held_out]
    scores = scorer.score(states, [[pair.chosen, pair.rejected] for pair in held_out])
    by_task = counted(held_out, scores)
    right = sum(hits for hits, _ in by_task.values())
    facts = {
        "pairs": 0,
        "held_out_pairs": len(held_out),
        "held_out_by_task": by_task,
        "held_out_accuracy": right / len(held_out) if held_out else None,
        "dropped_pairs": 0,
        "dropped_held_out_pairs": 0,
        "unread": scorer.unread,
    }

    def save(folder: Path) -> None:
        folder.mkdir(parents=True)
        write_json(folder / "asked.json", {"answer": settings.llm_answer})

    card = Card(
        library="transformers",
        tags=("llm-as-a-judge",),
        score="The probability of success that the base gives when it is asked, in [0, 1].",
        recipe=f"nothing: the base is asked, answer in {settings.llm_answer}",
    )
    judged = {"step": 0, "split": "held-out", "accuracy": facts["held_out_accuracy"]}
    return Fitted(save, [judged], facts, card)


def load(folder: Path, reference: Any, settings: LlmValueSettings, open_model: OpenModel) -> QModel:
    """The reference, asked."""
    return asker(reference, settings)


ESTIMATOR = Estimator("llm_value", LlmValueSettings, fit, load, unit="probability", asks=True)
