"""States, prompts and walks, as a reader sees them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qvlib.base import markup

if TYPE_CHECKING:
    from qvlib.core.types import Task
    from qvlib.environments import Tour


def quoted(task: Task) -> str:
    """The instruction of a task, as a quotation."""
    return markup.quote(task.instruction)


def after(actions: int) -> str:
    """Where in an episode a state is: how many actions lead to it."""
    if not actions:
        return "In the first state"
    return f"After {actions} action{'s' * (actions > 1)}"


def excerpt(text: str, most: int = 700) -> str:
    """A page or a prompt for people: a page's parts on lines of their own.

    Of what is too long the middle is left out.
    """
    text = markup.visible(text).replace(" [SEP] ", "\n   ")
    return text if len(text) <= most else f"{text[: most // 2]}\n   [...]\n{text[-(most // 2) :]}"


def by_hand(tour: Tour, reward: float) -> str:
    """The reward at the end of a tour's walk, by hand and by the environment."""
    walked = f"After {', '.join(map(markup.code, tour.walk))}: " if tour.walk else ""
    counted = "" if tour.by_hand is None else f"{tour.counted}: {tour.by_hand:.3f} by hand, "
    return f"{walked}{counted}**{reward:.3f}** by the environment."


def prompted(prompt: Any) -> str:
    """How a model is prompted, from one of its prompts."""
    from qvlib.models.chat import ChatPrompt

    if isinstance(prompt, ChatPrompt):
        return (
            "The prompt is a conversation: what the world is and how actions are written, the "
            "task, then actions and what they showed in turn. The reply names the next action."
        )
    if prompt.instruction:
        how = (
            "The prompt is compact: instruction, actions so far, current page. Names such as "
            "product ids are shown as `#1`, `#2`: a small model copies one token better than many."
        )
    else:
        how = "The prompt is a transcript: the instruction, then each action and what it showed."
    return (
        f"{how} Prompts and replies are plain tokens of an ordinary `transformers` model and "
        "tokenizer."
    )
