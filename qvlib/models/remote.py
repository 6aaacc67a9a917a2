"""A model behind a chat server in the place of a local one: it is prompted and sampled, and scores nothing."""

from __future__ import annotations

from dataclasses import dataclass

from qvlib.core.types import State
from qvlib.models.api import ApiAgent
from qvlib.models.api_client import ApiClient
from qvlib.models.chat import Chat, ChatPrompt, parse, unparsable


@dataclass(frozen=True)
class RemoteModel:
    """``client`` knows the server; ``style`` makes the messages; replies have at most ``max_action_tokens``."""

    client: ApiClient
    style: Chat
    max_action_tokens: int

    def prompt(self, state: State) -> tuple[ChatPrompt, tuple[int, ...]]:
        """The conversation as text; its tokens are the server's affair."""
        told = (
            f"{message['role']}: {message['content']}" for message in self.style.messages(state)
        )
        return ChatPrompt("\n".join(told), thoughts=True), ()

    def agent(self, temperature: float, top_p: float) -> ApiAgent:
        """The agent that samples so; 0 is greedy."""
        stop = () if self.style.thoughts else ("\nObservation:",)
        return ApiAgent(
            self.client,
            self.style.messages,
            parse,
            temperature,
            top_p,
            self.max_action_tokens,
            stop,
            unparsable=unparsable,
        )
