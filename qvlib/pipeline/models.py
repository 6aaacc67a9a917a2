"""The language models behind agents and Q models: the cloned ones, and any that is named."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from qvlib import environments
from qvlib.base.errors import QvlibError
from qvlib.base.paths import resolve
from qvlib.core.episodes import episode
from qvlib.core.lockstep import lockstep
from qvlib.core.types import State
from qvlib.models.names import SERVED, SMOLLM2, is_remote
from qvlib.pipeline.common import one_thread
from qvlib.pipeline.params import Params
from qvlib.pipeline.world import world
from qvlib.runs.stage import read_stage

EXAMPLE_TASKS = 40  # training tasks that are demonstrated to find examples among


def load_model(params: Params, which: str = "agent", dtype: str = "") -> Any:
    """The model of an agent: cloned or warm-started in its stage, else the one that a parameter names."""
    stage = read_stage(params, which)
    tuned = stage.path / "model"
    return load(params, tuned if tuned.is_dir() else stage.facts["model"], dtype)


def load_reference(params: Params, agent: Any = None) -> Any:
    """The reference of the Q model: the model ``q_base``, else the agent's own; ``agent`` serves where it is that.

    Never in bfloat16, whose rounding is as large as what a Q model has learnt: log-ratios of such an agent are
    those of its weights in float32.
    """
    dtype = "float32" if params.dtype == "bfloat16" else params.dtype
    if not params.q_base and is_remote(params.agent):
        raise QvlibError(
            f"q_base is empty, and {params.agent} is behind a server and cannot be tuned here; name a local model, such "
            "as q_base: smollm2"
        )
    if params.q_base:
        return load(params, params.q_base, dtype)
    return agent if agent is not None and dtype == params.dtype else load_model(params, dtype=dtype)


def load(params: Params, name: str | Path, dtype: str = "") -> Any:
    """A model with its tokenizer and the prompt style that fits it, on the run's device.

    name: a folder (a relative one is meant from the project's root), a GGUF file, ``smollm2``, a name on the hub, or
    ``api:MODEL`` for one behind the chat server ``api_base_url``.

    Raises:
        QvlibError: nothing of that name gives a causal model with a tokenizer.
    """
    from qvlib.models import local
    from qvlib.models.chat import Chat

    if is_remote(str(name)):
        return remote(params, str(name))
    one_thread(params)
    lm = local.load(
        found(name),
        dtype=dtype or params.dtype,
        device=params.device,
        max_action_tokens=params.max_action_tokens,
        cache_tokens=params.cache_tokens,
        style=functools.partial(style, params),
    )
    longest = lm.context - params.max_action_tokens
    if isinstance(lm.style, Chat) and lm.style.budget > longest:  # the model reads no more
        lm.style = replace(lm.style, budget=max(1, int(longest)))
    return lm


def found(name: str | Path) -> str | Path:
    """Where a model's files are: a folder, or a name on the hub as it is.

    Raises:
        QvlibError: a GGUF file or the package of ``smollm2`` is missing, or no model is in it.
    """
    from qvlib.models import gguf

    if name == SMOLLM2:
        return gguf.converted(gguf.smollm2())
    folder = resolve(name)
    if folder.suffix == ".gguf":
        return gguf.converted(folder)
    return folder if folder.is_dir() else name


def style(params: Params, tokenizer: Any) -> Callable[[State], Any]:
    """How a model is prompted: as a chat by its template; without one in the compact style, if it was cloned so, else as a plain chat."""
    from qvlib.models.chat import PLAIN, Chat
    from qvlib.models.prompts import ACT, compact

    if not tokenizer.chat_template:
        if ACT in tokenizer.get_vocab():
            return compact
        tokenizer.chat_template = PLAIN
    instructions, first, examples = _conversation(params)
    return Chat(tokenizer, instructions, first, examples, params.thoughts, params.prompt_tokens)


@functools.lru_cache(4)
def remote(params: Params, name: str) -> Any:
    """A model behind a chat server; one client a process and chain, so that its limit holds.

    Raises:
        QvlibError: a parameter ``api_*`` is none of its values.
    """
    from qvlib.models.api_client import ApiClient
    from qvlib.models.chat import Chat
    from qvlib.models.remote import RemoteModel

    model = name.removeprefix(SERVED)
    cache = resolve(
        params.api_cache
        or Path(params.runs_dir) / f"replies-{re.sub('[^A-Za-z0-9._-]', '-', model)}.jsonl"
    )
    client = ApiClient(
        model,
        params.api_base_url,
        params.api_key_variable,
        timeout=params.api_timeout,
        retries=params.api_retries,
        max_in_flight=params.api_in_flight,
        n_mode=params.api_n,
        cache=cache,
        offline=params.api_offline,
        price_prompt=params.api_price_prompt or None,
        price_completion=params.api_price_completion or None,
    )
    instructions, first, examples = _conversation(params)
    return RemoteModel(
        client, Chat(None, instructions, first, examples, params.thoughts), params.max_action_tokens
    )


@functools.lru_cache(2)
def _conversation(params: Params) -> tuple[str, Callable[..., str], tuple[State, ...]]:
    """What a conversation needs of the world: its instructions or none, a task's first observation, examples."""
    environment = world(params)

    @functools.lru_cache(4096)
    def first(task: Any) -> str:
        return environment.reset(task).observation

    return (
        environments.instructions(params) if params.instructions else "",
        first,
        examples(params, environment),
    )


def examples(params: Params, environment: Any) -> tuple[State, ...]:
    """The ends of the best demonstrated episodes among the first training tasks, the shortest first among equals."""
    if not params.examples:
        return ()
    tasks = environment.tasks("train")[:EXAMPLE_TASKS]
    jobs = (episode(environment, task, params.seed) for task in tasks)
    shown = {
        r["task"]: r
        for r in lockstep(jobs, environments.demonstrator(params, environment), params.batch_size)
    }
    best = sorted(tasks, key=lambda t: (-shown[t.id]["reward"], shown[t.id]["env_steps"], t.id))[
        : params.examples
    ]
    ends = []
    for task in best:
        state = environment.reset(task)
        for action in shown[task.id]["actions"]:
            state = environment.step(state, action)
        ends.append(state)
    return tuple(ends)
