"""The Q model's forms against plain full passes; where the published code's ranks otherwise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from toy import small_lm, states

from qvlib.estimators import step_dpo
from qvlib.estimators.log_ratio import LogRatio
from qvlib.estimators.step_dpo import StepDPOSettings
from qvlib.models.local import LocalModel
from qvlib.models.prompts import Prompt

SHOPS = states(5)
ACTIONS = [
    [*shop.admissible[1:], "search[red cotton]", "search[red cotton shirt wool sofa]"][: 3 + i % 3]
    for i, shop in enumerate(SHOPS)
]


@pytest.fixture(scope="module")
def pair() -> tuple[LocalModel, LocalModel]:
    """A policy and a reference that differ, with one tokenizer; batches are small, so several."""
    return small_lm(seed=1, batch_tokens=150), small_lm(seed=0, batch_tokens=150)


def full_logits(lm: LocalModel, prompt, reply) -> torch.Tensor:
    """[reply, V]: what predicts each token of the reply, from one pass over prompt and reply."""
    with torch.no_grad():
        return lm.model(input_ids=torch.tensor([prompt + reply])).logits[0, len(prompt) - 1 : -1]


def by_hand(rule: str, policy: LocalModel, reference: LocalModel, prompt, reply) -> float:
    z, z_ref = (
        full_logits(policy, prompt, reply).numpy(),
        full_logits(reference, prompt, reply).numpy(),
    )

    def log_softmax(x: np.ndarray) -> np.ndarray:
        return x - np.log(np.exp(x).sum(1, keepdims=True))

    at = np.arange(len(reply)), list(reply)
    if rule == "published_code":
        return math.exp(log_softmax(z - z_ref)[at].mean())
    ratios = log_softmax(z)[at] - log_softmax(z_ref)[at]
    return ratios.sum() if rule == "sum" else ratios.mean()


@pytest.mark.parametrize("rule", ["sum", "mean", "published_code"])
def test_every_form_is_that_of_full_passes(pair, rule):
    policy, reference = pair
    scores = LogRatio(*pair, rule).score(SHOPS, ACTIONS)
    for shop, actions, row in zip(SHOPS, ACTIONS, scores, strict=True):
        prompt, ids = policy.prompt(shop)
        expected = [
            by_hand(rule, policy, reference, ids, policy.action_ids(prompt, a)) for a in actions
        ]
        assert row == pytest.approx(expected, rel=1e-8, abs=1e-12)
    assert len({round(q, 9) for row in scores for q in row}) == sum(map(len, ACTIONS))


def test_published_score_is_the_log_ratio_less_the_sum_of_all_ratios(pair):
    """log score = mean_t (log-ratio of a_t - log sum_v of pi(v) / pi_ref(v))."""
    policy, _ = pair
    prompt, ids = policy.prompt(SHOPS[0])
    reply = policy.action_ids(prompt, "search[red cotton]")
    logs = [torch.log_softmax(full_logits(lm, ids, reply), -1) for lm in pair]
    ratio = logs[0] - logs[1]
    own = ratio[range(len(reply)), list(reply)]
    ((score,),) = LogRatio(*pair, "published_code").score(SHOPS[:1], [["search[red cotton]"]])
    assert math.log(score) == pytest.approx(
        float((own - torch.logsumexp(ratio, -1)).mean()), abs=1e-9
    )


def test_an_unmoved_policy_scores_every_action_alike(pair):
    _, reference = pair
    assert LogRatio(reference, reference).score(SHOPS[:1], ACTIONS[:1]) == [[0.0] * 3]
    (row,) = LogRatio(reference, reference, "published_code").score(SHOPS[:1], ACTIONS[:1])
    assert row == pytest.approx([1 / len(reference.tokenizer)] * 3)


# -- a case by hand ---------------------------------------------------------------------------

END, A, B, X, Y, FAR = range(6)


@dataclass
class Told(LocalModel):
    """Next-token probabilities by the token before; an action is a list of token names."""

    table: dict[int | None, list[float]] | None = None

    def prompts(self, states):
        return [(Prompt(""), (X,)) for _ in states]

    def action_ids(self, prompt, action):
        return (*("_abxy".index(c) for c in action), END)

    def reply_logits(self, rows):
        width = max(len(r) for _, r in rows)
        return torch.tensor(
            [
                [self.table[r[t - 1] if 0 < t < len(r) else None] for t in range(width)]
                for _, r in rows
            ],
            dtype=torch.float64,
        ).log()


def told(**table) -> Told:
    lm, before = small_lm(), {"start": None, "a": A, "b": B, "x": X, "y": Y}
    return Told(
        lm.model, lm.tokenizer, memory=0, table={before[name]: row for name, row in table.items()}
    )


def test_the_published_form_ranks_two_actions_otherwise():
    """A far-off token decides.

    After ``a`` training doubled x, and raised a far-off token from 0.001 to 0.2; after ``b`` it
    raised y by half.

    The log-ratio prefers ``ax`` (log 2 against log 1.5). The published softmax of the difference
    divides by the sum of all ratios, which that far-off token makes 203 after ``a`` and which is
    5.5 after ``b``.
    """
    sure = [0.95, 0.01, 0.01, 0.01, 0.01, 0.01]
    reference = told(
        start=[0.1, 0.4, 0.4, 0.03, 0.03, 0.04],
        x=sure,
        y=sure,
        a=[0.2, 0.1, 0.1, 0.3, 0.299, 0.001],
        b=[0.2, 0.1, 0.1, 0.2, 0.3, 0.1],
    )
    policy = told(
        start=[0.1, 0.4, 0.4, 0.03, 0.03, 0.04],
        x=sure,
        y=sure,
        a=[0.05, 0.05, 0.05, 0.6, 0.05, 0.2],
        b=[0.2, 0.1, 0.1, 0.1, 0.45, 0.05],
    )
    (summed,) = LogRatio(policy, reference).score(SHOPS[:1], [["ax", "by"]])
    (mean,) = LogRatio(policy, reference, "mean").score(SHOPS[:1], [["ax", "by"]])
    (published,) = LogRatio(policy, reference, "published_code").score(SHOPS[:1], [["ax", "by"]])
    assert summed == pytest.approx([math.log(2), math.log(1.5)]) and mean == pytest.approx(
        [q / 3 for q in summed]
    )
    after_a = 0.05 / 0.2 + 0.05 / 0.1 + 0.05 / 0.1 + 2 + 0.05 / 0.299 + 200
    after_b = 1 + 1 + 1 + 0.5 + 1.5 + 0.5
    # the first and the last token: all six ratios are 1
    assert published == pytest.approx(
        [(2 / after_a / 36) ** (1 / 3), (1.5 / after_b / 36) ** (1 / 3)]
    )
    assert summed[0] > summed[1] and mean[0] > mean[1] and published[0] < published[1]


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({}, "sum"),
        ({"log_prob": "mean"}, "mean"),
        ({"score_rule": "mean"}, "mean"),
        ({"log_prob": "mean", "score_rule": "sum"}, "sum"),
        ({"score_rule": "published_code"}, "published_code"),
    ],
)
def test_actions_are_scored_as_trained_or_by_the_rule_that_is_named(pair, tmp_path, settings, rule):
    policy, reference = pair
    opened = step_dpo.load(tmp_path, reference, StepDPOSettings(**settings), lambda *_: policy)
    assert opened == LogRatio(policy, reference, rule)
