"""One preference pair under the Q model: the log-probabilities that its loss is made of."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from qvlib.base import markup
from qvlib.core.episodes import replay
from qvlib.core.preferences import Pair, hold_out
from qvlib.core.types import State
from qvlib.estimators.data import encode_pairs, fitting
from qvlib.estimators.log_ratio import LogRatio
from qvlib.models.local import LocalModel
from qvlib.pipeline.context import Context
from qvlib.pipeline.pairs import load_pairs

POLICY, REFERENCE = "log π", "log π_ref"


def example(context: Context) -> tuple[Pair, State]:
    """The pair of the widest margin that is held out, or trained on where none is; its state.

    Pairs longer than the model's context are left out, as in training.
    """
    params, lm = context.params, context.reference()
    train, held_out = hold_out(load_pairs(params), params.pairs.heldout_share, params.run.seed)
    tasks = {task.id: task for task in context.environment.tasks("train")}
    for pair in (p for pairs in (held_out, train) for p in sorted(pairs, key=_narrowness)):
        state = replay(context.environment, tasks[pair.task], pair.path)
        if fitting(lm, encode_pairs(lm, [state], [pair])):
            return pair, state
    raise AssertionError("no pair fits: then no Q model was fitted either")


def _narrowness(pair: Pair) -> float:
    return -pair.margin


def scores(context: Context, state: State, actions: Sequence[str]) -> pd.Series:
    """Q of actions of one state, by the run's Q model."""
    (values,) = context.q_model().score([state], [actions])
    return pd.Series(values, index=list(actions))


def log_probs(context: Context, state: State, actions: Sequence[str]) -> pd.DataFrame:
    """log pi of each action under the policy and under the reference, nats; a row an action.

    Summed over the action's tokens, or their mean, as the estimator has it. For estimators whose Q
    is the ratio of the two.
    """
    q_model = context.q_model()
    assert isinstance(q_model, LogRatio)
    of = {POLICY: q_model.policy, REFERENCE: q_model.reference}
    columns = {name: _of(model, state, actions, q_model.rule) for name, model in of.items()}
    return pd.DataFrame(columns, index=list(actions))


def _of(model: LocalModel, state: State, actions: Sequence[str], rule: str) -> list[float]:
    prompt, ids = model.prompt(state)
    replies = [model.action_ids(prompt, action) for action in actions]
    (sums,) = model.log_probs([ids], [replies])
    lengths = [len(reply) if rule == "mean" else 1 for reply in replies]
    return [total / length for total, length in zip(sums, lengths, strict=True)]


def display_scores(pair: Pair, q: pd.Series, four: pd.DataFrame | None) -> pd.DataFrame:
    """The two actions with the search's values, their log-probabilities where told, and Q."""
    columns = [] if four is None else list(four)
    return pd.DataFrame(
        {
            "action": [markup.code(pair.chosen), markup.code(pair.rejected)],
            "": ["chosen", "rejected"],
            "value V": [pair.chosen_value, pair.rejected_value],
            **{f"{name} (nats)": [f"{value:.3f}" for value in four[name]] for name in columns},
            "Q": [f"{value:+.3f}" for value in q],
        }
    )
