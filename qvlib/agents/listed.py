"""Candidates that the environment lists: beside the sampled ones, or in their place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from qvlib.base.seeding import generator
from qvlib.core.types import Agent, Cost, Environment, Proposal, Request, State
from qvlib.models.nucleus import nucleus_of

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


@dataclass(frozen=True)
class Choosing:
    """Draws from the actions that the environment lists and accepts, by the model's probability.

    agent: draws in states where nothing is listed or an argument is free text (``verb[<...>]``).
    temperature, top_p: as of a next token, over the actions of a state; 0 is the likeliest of them.
    An action's log-probability is that of its reply, as if it had been sampled.
    """

    agent: Agent
    environment: Environment
    lm: LocalModel
    temperature: float = 1.0
    top_p: float = 1.0

    def propose(self, requests: Sequence[Request]) -> list[list[Proposal]]:
        listed = [self._listed(request.state) for request in requests]
        others = [r for r, actions in zip(requests, listed, strict=True) if not actions]
        answers = iter(self.agent.propose(others) if others else [])
        choices = [(r, actions) for r, actions in zip(requests, listed, strict=True) if actions]
        chosen = iter(self._choose(choices))
        return [next(chosen) if actions else next(answers) for actions in listed]

    def _choose(self, choices: Sequence[tuple[Request, list[str]]]) -> list[list[Proposal]]:
        prompts = self.lm.prompts([request.state for request, _ in choices])
        replies = [
            [self.lm.action_ids(prompt, action) for action in actions]
            for (prompt, _), (_, actions) in zip(prompts, choices, strict=True)
        ]
        scores = self.lm.log_probs([ids for _, ids in prompts], replies)
        drawn = []
        for (request, actions), (_, prompt), ids, log_probs in zip(
            choices, prompts, replies, scores, strict=True
        ):
            # The prompt is paid for once, by the first draw.
            drawn.append(
                [
                    Proposal(
                        actions[i],
                        log_probs[i],
                        Cost(tokens=len(ids[i]), prompt_tokens=len(prompt) if k == 0 else 0),
                    )
                    for k, i in enumerate(self._draws(request, np.array(log_probs)))
                ]
            )
        return drawn

    def _draws(self, request: Request, log_probs: np.ndarray) -> list[int]:
        """Places of ``request.n`` draws among actions with these log-probabilities [actions]."""
        if self.temperature == 0:
            return [int(log_probs.argmax())] * request.n
        nucleus = nucleus_of(log_probs, self.temperature, self.top_p)
        draws = [generator(*request.key, k).random() for k in range(request.n)]
        places = np.searchsorted(nucleus.cumulative, draws, side="right")
        return [int(i) for i in nucleus.tokens[np.minimum(places, len(nucleus.tokens) - 1)]]

    def _listed(self, state: State) -> list[str]:
        """The actions that the environment would not refuse; none where any is free text."""
        actions = state.admissible or ()
        if any("[<" in action and action.endswith(">]") for action in actions):
            return []
        return [a for a in actions if self.environment.accepts(state, a) is not False]
