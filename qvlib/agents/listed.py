"""Candidates beyond the sampled ones: every action that the environment lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qvlib.core.types import Agent, Environment, Proposal, Request

if TYPE_CHECKING:
    from qvlib.models.local import LocalModel


@dataclass(frozen=True)
class Listed:
    """Adds to the sampled candidates every action that the environment lists and accepts.

    Free-text actions (``verb[<...>]``) come from sampling alone. What is added gets the model's own
    log-probability, so that a prior can weigh it; many of these the agent would hardly ever sample.
    """

    agent: Agent
    environment: Environment
    lm: LocalModel

    def propose(self, requests: Sequence[Request]) -> list[list[Proposal]]:
        answers = self.agent.propose(requests)
        unsampled = [
            self._unsampled(request, proposals)
            for request, proposals in zip(requests, answers, strict=True)
        ]
        prompts = [self.lm.prompt(request.state) for request in requests]
        ids = [
            [self.lm.action_ids(prompt, action) for action in actions]
            for (prompt, _), actions in zip(prompts, unsampled, strict=True)
        ]
        scores = self.lm.log_probs([prompt_ids for _, prompt_ids in prompts], ids)
        return [
            [*proposals, *(Proposal(a, s) for a, s in zip(actions, log_probs, strict=True))]
            for proposals, actions, log_probs in zip(answers, unsampled, scores, strict=True)
        ]

    def _unsampled(self, request: Request, proposals: Sequence[Proposal]) -> list[str]:
        """The listed actions that were not sampled and would not be refused."""
        sampled = {p.action for p in proposals}
        return [
            action
            for action in request.state.admissible or ()
            if "<" not in action
            and action not in sampled
            and self.environment.accepts(request.state, action) is not False
        ]
