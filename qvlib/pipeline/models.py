"""The language models behind agents and Q models: the cloned ones, and any that is named."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qvlib import environments
from qvlib.base.errors import QvlibError
from qvlib.base.paths import resolve
from qvlib.core.episodes import episode
from qvlib.core.lockstep import lockstep
from qvlib.core.types import State
from qvlib.models.names import SERVED, is_remote
from qvlib.pipeline.common import one_thread
from qvlib.pipeline.params import Params
from qvlib.pipeline.world import world
from qvlib.runs.stage import read_stage

if TYPE_CHECKING:
    from qvlib.models.chat import Chat

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
    from qvlib.models import loading

    if is_remote(name):
        return remote(params, str(name))
    one_thread(params)
    return loading.load_model(
        name,
        chat=functools.partial(chat, params),
        dtype=dtype or params.dtype,
        device=params.device,
        max_action_tokens=params.max_action_tokens,
        cache_tokens=params.cache_tokens,
    )


def chat(params: Params, tokenizer: Any) -> Chat:
    """How a model is talked to."""
    from qvlib.models.chat import Chat

    instructions, first, examples = _conversation(params)
    return Chat(tokenizer, instructions, first, examples, params.thoughts, params.prompt_tokens)


@functools.lru_cache(4)
def remote(params: Params, name: str) -> Any:
    """A model behind a chat server; one client a process and chain, so that its limit holds.

    Raises:
        QvlibError: a parameter ``api_*`` is none of its values.
    """
    from qvlib.models.loading import remote_model

    model = name.removeprefix(SERVED)
    cache = resolve(
        params.api_cache
        or Path(params.runs_dir) / f"replies-{re.sub('[^A-Za-z0-9._-]', '-', model)}.jsonl"
    )
    return remote_model(
        name,
        chat=functools.partial(chat, params),
        max_action_tokens=params.max_action_tokens,
        base_url=params.api_base_url,
        key_variable=params.api_key_variable,
        timeout=params.api_timeout,
        retries=params.api_retries,
        max_in_flight=params.api_in_flight,
        n_mode=params.api_n,
        cache=cache,
        offline=params.api_offline,
        price_prompt=params.api_price_prompt or None,
        price_completion=params.api_price_completion or None,
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
