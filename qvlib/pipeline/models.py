"""The models behind agents and Q models: made in a stage, or named by a parameter."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from qvlib import environments
from qvlib.base.errors import QvlibError
from qvlib.base.paths import display_path, resolve
from qvlib.core.episodes import demonstrate, replay
from qvlib.core.types import Agent, Environment, QModel, State, Task
from qvlib.estimators import estimator_of
from qvlib.models.names import SERVED, is_remote
from qvlib.models.verdicts import judge_of
from qvlib.pipeline.params import Params
from qvlib.pipeline.work import keep_to_share
from qvlib.runs.stage import Stage, read_stage

EXAMPLE_TASKS = 40  # training tasks that are demonstrated to find examples among


class Surroundings(Protocol):
    """What loading a model looks at: a ``qvlib.pipeline.context.Context``, as seen from here."""

    params: Params
    environment: Environment
    world: environments.World
    conversation: Conversation

    def demonstrator(self, errors: float | None = None) -> Agent:
        """The scripted agent of the world."""

    def model(self, which: str, dtype: str) -> Any:
        """The model of an agent."""

    def reference(self) -> Any:
        """The model that Q models are compared with."""


def load_of_stage(context: Surroundings, which: str = "agent", dtype: str = "") -> Any:
    """The model of an agent: made in its stage, else the one that a parameter names.

    Raises:
        QvlibError: it is another one now than when the stage was made.
    """
    stage = read_stage(context.params, which)
    name = stage.facts.get("model")
    if not name:
        return load(context, model_folder(stage, "model"), dtype)
    lm = load(context, name, dtype)
    known = stage.facts.get("commit")
    if known and commit_of(lm) != known:
        raise QvlibError(
            f"{name} has changed on the hub since this run began (commit {known:.8}, now "
            f"{commit_of(lm)!s:.8}); name a folder with that commit, or delete "
            f"{display_path(stage.path)} and what is built on it"
        )
    return lm


def commit_of(lm: Any) -> str | None:
    """The commit of the hub that a local model was read from; None for one from a folder."""
    return getattr(lm.model.config, "_commit_hash", None)


def model_folder(stage: Stage, name: str) -> Path:
    """The folder of a model that a stage has made.

    Raises:
        QvlibError: it is gone.
    """
    folder = stage.path / name
    if not folder.is_dir():
        raise QvlibError(
            f"{display_path(folder)} is gone; restore it, or delete the folder "
            f"{display_path(stage.path)} to make the stage anew"
        )
    return folder


def load_reference(context: Surroundings) -> Any:
    """The reference of the Q model: the model ``q_base``, else the agent's own.

    Never in bfloat16, whose rounding is as large as what a Q model has learnt: log-ratios of such
    an agent are those of its weights in float32.

    Raises:
        QvlibError: the agent is behind a server, ``q_base`` is empty, and the estimator does more
            than ask.
    """
    params = context.params
    base, agent = params.q_model.q_base, params.agent.agent
    dtype = "float32" if params.dtype == "bfloat16" else params.dtype
    if base:
        return load(context, base, dtype)
    if is_remote(agent) and estimator_of(params.q_model.estimator).asks:
        return context.model("agent")
    if is_remote(agent):
        raise QvlibError(
            f"q_base is empty, and {agent} is behind a server and cannot be tuned here; name a "
            "local model, such as q_base: smollm2"
        )
    return context.model("agent", "" if dtype == params.dtype else dtype)


def load_q(context: Surroundings, which: str, name: str) -> QModel:
    """A fitted Q model of a stage, such as ``q_model``, by the estimator that made it."""
    params = context.params
    folder = model_folder(read_stage(params, which), name)
    estimator = estimator_of(params.q_model.estimator)
    open_model = functools.partial(load, context)
    return estimator.load(folder, context.reference(), params.estimator, open_model)


def load_judge(context: Surroundings) -> Agent | None:
    """Who gives verdicts on ends while collecting; None where the world's own rewards count.

    Raises:
        QvlibError: the model that is named is none that chats.
    """
    params = context.params
    if not params.judge:
        return None
    named = params.collecting.evaluator_model
    lm = load(context, named) if named else context.model("agent", "")
    return judge_of(lm, params.judge, params.collecting.verdict_tokens)


def load(context: Surroundings, name: str | Path, dtype: str = "") -> Any:
    """A model with its tokenizer and the prompt style that fits it, on the run's device.

    name: a folder (a relative one is meant from the project's root), a GGUF file, ``smollm2``, a
    name on the hub, or ``api:MODEL`` for one behind the chat server ``api_base_url``.

    Raises:
        QvlibError: nothing of that name gives a causal model with a tokenizer.
    """
    from qvlib.models.loading import load_model

    params = context.params
    if is_remote(name):
        return served(context, str(name))
    keep_to_share(params)
    return load_model(
        name,
        chat=functools.partial(chat, context),
        dtype=dtype or params.dtype,
        device=params.run.device,
        max_action_tokens=params.sampling.max_action_tokens,
        cache_tokens=params.agent.cache_tokens,
        trust_remote_code=params.agent.trust_remote_code,
        pickled_weights=params.agent.pickled_weights,
    )


def chat(context: Surroundings, tokenizer: Any) -> Any:
    """How a chat model is talked to; without a tokenizer, one behind a server."""
    from qvlib.models.chat import Chat

    told = context.conversation
    return Chat(
        tokenizer,
        told.instructions,
        told.first,
        told.examples,
        told.thoughts,
        told.prompt_tokens,
        told.words,
    )


def served(context: Surroundings, name: str) -> Any:
    """A model behind a chat server.

    Raises:
        QvlibError: a parameter ``api_*`` is none of its values.
    """
    from qvlib.models.remote import RemoteModel

    params = context.params
    model, how = name.removeprefix(SERVED), params.server
    own = f"replies-{re.sub('[^A-Za-z0-9._-]', '-', model)}.jsonl"
    client = _client(
        model,
        how.api_base_url,
        how.api_key_variable,
        timeout=how.api_timeout,
        deadline=how.api_deadline,
        longest_answer=how.api_longest_answer,
        longest_wait=how.api_longest_wait,
        refusals=tuple(how.api_refusals.items()),
        retries=how.api_retries,
        max_in_flight=how.api_in_flight,
        n_mode=how.api_n,
        cache=resolve(how.api_cache or Path(params.run.runs_dir) / own),
        offline=how.api_offline,
        price_prompt=how.api_price_prompt or None,
        price_completion=how.api_price_completion or None,
    )
    longest = params.sampling.max_action_tokens
    return RemoteModel(client, chat(context, None), longest, dict(how.api_extra))


@functools.lru_cache(4)
def _client(model: str, *address: str, refusals: tuple[tuple[str, str], ...], **how: Any) -> Any:
    """One client a process and server, so that its limit of requests holds."""
    from qvlib.models.api_client import ApiClient

    return ApiClient(model, *address, refusals=dict(refusals), **how)


@dataclass(frozen=True)
class Conversation:
    """What a conversation needs of the environment.

    instructions: its rules, or "". first: the first observation of a task. examples: the ends of
    demonstrated episodes. thoughts: whether thoughts are asked for. prompt_tokens: longest prompt.
    words: most that a reply quotes of an item.
    """

    instructions: str
    first: Callable[[Task], str]
    examples: tuple[State, ...]
    thoughts: bool
    prompt_tokens: int
    words: int


def conversation(context: Surroundings) -> Conversation:
    """What chat models are told of the environment."""
    how, environment = context.params.agent, context.environment

    @functools.lru_cache(4096)
    def first(task: Task) -> str:
        return environment.reset(task).observation

    instructions = context.world.instructions if how.instructions else ""
    shown, longest = examples(context), how.prompt_tokens
    return Conversation(instructions, first, shown, how.thoughts, longest, how.description_words)


def demonstrator(context: Surroundings, errors: float | None = None) -> Agent:
    """The scripted agent of the world, which errs as often as ``demonstrator_errors`` says."""
    if errors is None:
        errors = context.params.agent.demonstrator_errors
    return environments.demonstrator(context.world, context.environment, errors)


def examples(context: Surroundings) -> tuple[State, ...]:
    """The ends of the best demonstrated episodes among the first training tasks, shortest first."""
    params, environment = context.params, context.environment
    if not params.agent.examples:
        return ()
    tasks = environment.tasks("train")[:EXAMPLE_TASKS]
    agent, seed = context.demonstrator(), params.run.seed
    records = demonstrate(environment, tasks, agent, seed, params.run.batch_size)
    by_worth = sorted(
        zip(tasks, records, strict=True),
        key=lambda pair: (-pair[1]["reward"], pair[1]["env_steps"], pair[0].id),
    )
    best = by_worth[: params.agent.examples]
    return tuple(replay(environment, task, record["actions"]) for task, record in best)
