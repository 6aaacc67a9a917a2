"""A model behind a chat server in the place of a local one, which scores nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from qvlib.core.types import State
from qvlib.models.api import ApiAgent
from qvlib.models.api_client import ApiClient
from qvlib.models.chat import Chat, ChatPrompt
from qvlib.models.replies import STOP, parse, unparsable


@dataclass(frozen=True)
class RemoteModel:
    """A served model.

    client: knows the server. style: makes the messages. max_action_tokens: longest reply.
    extra: more fields of each request, as ``ApiAgent`` takes them.
    """

    client: ApiClient
    style: Chat
    max_action_tokens: int
    extra: Mapping[str, Any] = field(default_factory=dict)

    def prompt(self, state: State) -> tuple[ChatPrompt, tuple[int, ...]]:
        """The conversation as text; its tokens are the server's affair."""
        told = (
            f"{message['role']}: {message['content']}" for message in self.style.messages(state)
        )
        return ChatPrompt("\n".join(told), True, self.style.quotes(state)), ()

    def agent(self, temperature: float, top_p: float) -> ApiAgent:
        """The agent that samples so; 0 is greedy."""
        return ApiAgent(
            self.client,
            self.style.messages,
            parse,
            temperature,
            top_p,
            self.max_action_tokens,
            stop=(STOP,),
            extra=self.extra,
            unparsable=unparsable,
            shorter=self.style.messages,
        )
