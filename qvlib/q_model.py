"""The Q model: Q(u, tau_t, a) = log pi(a | u, tau_t) - log pi_ref(a | u, tau_t) (arXiv 2409.09345, section 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .models.local import LocalModel
from .types import State


@dataclass(frozen=True)
class LogRatio:
    """The Q model of DPO: a tuned policy against its reference, both with the same tokenizer.

    rule: ``sum`` of the log-ratios over the action's tokens, end token included (as in training), or
    their ``mean``. Nats; the factor beta is left out, it does not change the order.
    """

    policy: LocalModel
    reference: LocalModel
    rule: str = "sum"

    def score(self, states: Sequence[State], actions: Sequence[Sequence[str]]) -> list[list[float]]:
        prompts = [self.policy.prompt(state) for state in states]
        ids = [p for _, p in prompts]
        replies = [[self.policy.action_ids(prompt, a) for a in candidates]
                   for (prompt, _), candidates in zip(prompts, actions, strict=True)]
        tuned, untuned = self.policy.log_probs(ids, replies), self.reference.log_probs(ids, replies)
        return [[(t - u) / (len(r) if self.rule == "mean" else 1) for t, u, r in zip(ts, us, rs, strict=True)]
                for ts, us, rs in zip(tuned, untuned, replies, strict=True)]
