"""Q(u, tau_t, a) = log pi(a | u, tau_t) - log pi_ref(a | u, tau_t) (arXiv 2409.09345, sec. 5)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from qvlib.core.types import State
from qvlib.models.local import Ids, LocalModel, own_log_probs


@dataclass(frozen=True)
class LogRatio:
    """The Q model of DPO: a tuned policy against its reference, both with the same tokenizer.

    rule: ``sum`` of the log-ratios over the action's tokens, end token included (as in training),
    or their ``mean``. Nats; the factor beta is left out, it does not change the order.

    ``published_code`` is the score of the paper's code: exp(mean_t log softmax(z_pi - z_ref)[a_t]),
    in (0, 1], z the logits at token t. Its softmax normalises their difference over the vocabulary,
    so that each token's log-ratio loses log sum_v pi(v) / pi_ref(v): what training did there to
    tokens that are not in the action counts, and most where the reference finds them unlikely.
    """

    policy: LocalModel
    reference: LocalModel
    rule: str = "sum"

    def score(self, states: Sequence[State], actions: Sequence[Sequence[str]]) -> list[list[float]]:
        prompts = self.policy.prompts(states)
        ids = [p for _, p in prompts]
        replies = [
            [self.policy.action_ids(prompt, a) for a in candidates]
            for (prompt, _), candidates in zip(prompts, actions, strict=True)
        ]
        if self.rule == "published_code":
            return self._published(ids, replies)
        tuned, untuned = self.policy.log_probs(ids, replies), self.reference.log_probs(ids, replies)
        return [
            [
                (t - u) / (len(r) if self.rule == "mean" else 1)
                for t, u, r in zip(ts, us, rs, strict=True)
            ]
            for ts, us, rs in zip(tuned, untuned, replies, strict=True)
        ]

    def _published(
        self, prompts: Sequence[Ids], replies: Sequence[Sequence[Ids]]
    ) -> list[list[float]]:
        asked = dict.fromkeys((p, r) for p, rs in zip(prompts, replies, strict=True) for r in rs)
        scores = {}
        for batch in self.policy.batches(asked):
            difference = self.policy.reply_logits(batch) - self.reference.reply_logits(batch)
            tokens = own_log_probs(difference, batch)
            scores |= {
                row: math.exp(values.mean()) for row, values in zip(batch, tokens, strict=True)
            }
        return [[scores[p, r] for r in rs] for p, rs in zip(prompts, replies, strict=True)]


@dataclass(frozen=True)
class LogProb:
    """What an agent knows without Q: its own log-probability of the action as a reply, nats."""

    model: LocalModel

    def score(self, states: Sequence[State], actions: Sequence[Sequence[str]]) -> list[list[float]]:
        prompts = self.model.prompts(states)
        replies = [
            [self.model.action_ids(prompt, action) for action in candidates]
            for (prompt, _), candidates in zip(prompts, actions, strict=True)
        ]
        return self.model.log_probs([ids for _, ids in prompts], replies)
