"""How long prompts, actions and replies are in the environment of a parameter file."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass

from qvlib.base.paths import display_path, resolve
from qvlib.models.names import SMALL, files_of, has_files, is_remote
from qvlib.pipeline.params import Params
from qvlib.tools.needs.counts import Measured

CHARACTERS = 4  # a token, where there is no tokenizer
TASKS = 40  # demonstrated to measure prompts
GAMES = 20  # made for that, where an environment makes its tasks


@dataclass(frozen=True)
class Lengths:
    """Mean tokens of a prompt, of an action and of a reply; ``origin``: where they are from."""

    prompt: float
    action: float
    reply: float
    origin: tuple[str, ...] = ()


def lengths(params: Params, run: Measured | None = None, reply: float | None = None) -> Lengths:
    """Mean lengths over episodes of the scripted demonstrator, in the file's own conversation.

    The environment is the file's; where its data are not here, an embedded one.

    Args:
        run: where it is of the same agent in the same environment, prompts and replies are as
            long as there.
        reply: tokens of a reply that were measured.

    Raises:
        QvlibError: the data are broken, or the environment has no demonstrator.
    """
    prompt, action, steps = _demonstrated(params)
    if run and (run.agent, run.environment) == (params.agent.agent, params.world.environment):
        prompt = run.prompt
        origin = [
            f"a prompt has {prompt:,.0f} tokens, as in arm greedy of that run",
            f"an action has {action:,.1f} tokens: means over {steps}",
        ]
    else:
        run = None
        origin = [f"a prompt has {prompt:,.0f} tokens, an action {action:,.1f}: means over {steps}"]
    if reply is not None:
        origin.append(f"a reply has {reply:g} tokens: as given")
    elif run:
        reply = run.reply
        origin.append(f"a reply has {reply:,.1f} tokens, as in arm greedy of that run")
    elif params.agent.thoughts:
        reply = params.sampling.max_action_tokens
        origin.append(
            f"a reply has {reply} tokens, the most that max_action_tokens allows, since thoughts "
            "are of no known length; --reply-tokens gives a measured one"
        )
    else:
        reply = min(action + 1, params.sampling.max_action_tokens)
        origin.append("a reply is an action and the token that ends it")
    return Lengths(prompt, action, reply, tuple(origin))


def _demonstrated(params: Params) -> tuple[float, float, str]:
    """Mean tokens of a prompt and of an action, and over which steps, counted how."""
    from qvlib.core.episodes import decisions, demonstrate
    from qvlib.models.chat import Chat
    from qvlib.models.prompts import compact, cut
    from qvlib.pipeline.context import context_of

    here = not params.world.data_dir or resolve(params.world.data_dir).is_dir()
    embedded = {"data_dir": "", "goals": "synthetic", "title_nouns": "auto"}
    known = params.flat()
    changes = {name: value for name, value in embedded.items() if name in known and not here}
    if "game_count" in known:  # games take seconds each to make
        changes["game_count"] = min(known["game_count"], GAMES)
    count, how = _counter(params.agent.agent)
    prompts, actions = [], []
    with tempfile.TemporaryDirectory(prefix="qvlib-needs-") as folder:
        own = params.replace(**changes, runs_dir=folder)
        context = context_of(own)
        environment, told = context.environment, context.conversation
        tasks = environment.tasks("train")[:TASKS]
        chat = Chat(
            None,
            context.world.instructions,
            told.first,
            told.examples,
            told.thoughts,
            words=told.words,
        )
        demonstrator, width = context.demonstrator(), own.run.batch_size
        records = demonstrate(environment, tasks, demonstrator, own.run.seed, width)
        for task, record in zip(tasks, records, strict=True):
            for state, action in decisions(environment, task, record["actions"]):
                messages = [message["content"] for message in chat.messages(state)]
                text = compact(state).text if params.agent.agent == SMALL else "\n".join(messages)
                length = count(text)
                bound = length if is_remote(params.agent.agent) else params.agent.prompt_tokens
                prompts.append(min(length, bound))
                said = cut(state.describe(action), told.words)
                actions.append(count(f"{action} {said}".strip()))
    where = (
        display_path(resolve(own.world.data_dir)) if own.world.data_dir else "the embedded world"
    )
    where += "" if here else f", since {params.world.data_dir} is not here"
    steps = (
        f"{len(prompts)} demonstrated steps in {where}, {how}, without what a chat template adds"
    )
    return sum(prompts) / len(prompts), sum(actions) / len(actions), steps


def _counter(name: str) -> tuple[Callable[[str], float], str]:
    """(text -> tokens, how that is counted).

    By the model's tokenizer if it lies on this machine.
    """
    if has_files(name):
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(
                files_of(name), local_files_only=True, trust_remote_code=False
            )
        except (OSError, ValueError):
            pass
        else:
            return (
                lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"]),
                f"by the tokenizer of {name}",
            )
    return (
        lambda text: len(text) / CHARACTERS,
        f"{CHARACTERS} characters counted as a token (the tokenizer of {name} is not here)",
    )
