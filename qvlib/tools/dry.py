"""A parameter file taken through all stages in under a minute of CPU time.

With small random models of the same architectures.

It shows that the file, the prompts, the training and the arms fit together; of the method it shows
nothing. Models that cannot be had here (a gated hub, a paid server) are what it is for: one behind
a server is asked over HTTP, by the same client, from a server on loopback. A random model is taught
some demonstrated decisions first: untaught, it would name no action.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from qvlib.base.errors import QvlibError
from qvlib.core.types import State
from qvlib.models.names import SMALL, has_files, is_remote
from qvlib.pipeline.params import Params

SIZE = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 4096,
}
FAMILIES = {  # part of a name, lower case -> transformers' model type
    "phi-3": "phi3",
    "phi3": "phi3",
    "phi-1": "phi",
    "phi-2": "phi",
    "llama": "llama",
    "smollm": "llama",
    "mistral": "mistral",
    "qwen2": "qwen2",
    "gpt-2": "gpt2",
    "gpt2": "gpt2",
}
SERVED = "llama"  # stands for a model behind a server
ROLES = ("system", "user", "assistant")
END, TASKS, VOCABULARY = "<|end|>", 30, 1024
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}" + END + "\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
CHANGES = {
    "data_dir": "",
    "goals": "synthetic",
    "title_nouns": "auto",
    "catalogue_products": 200,
    "device": "cpu",
    "dtype": "float32",
    "processes": 1,
    "seeds": 1,
    "batch_size": 16,
    "prompt_tokens": 768,
    "cache_tokens": 20_000,
    "max_action_tokens": 24,
    "demonstrations": 20,
    "clone_epochs": 1,
    "warm_rank": 0,
    "train_tasks": 6,
    "iterations": 8,
    "max_steps": 5,
    "rounds": 1,
    "test_tasks": 2,
    "test_skip": 0,
    "mcts_iterations": 2,
    "control_shuffles": 1,
    "heldout_share": 0.4,
    "pairs": "all_siblings",
    "min_margin": 0.0,
    "dpo_batch": 8,
    "dpo_lr": 1e-4,
    "rft_min_reward": 0.0,
    "rft_epochs": 1,
    "rule_tasks": 0,
    "grid": "",
    "bootstrap": 100,
    "wandb_mode": "disabled",
    "api_key_variable": "",
    "api_cache": "",
    "api_offline": False,
    "api_in_flight": 4,
    "api_timeout": 600.0,
}
# Batches of decisions that a random model is taught, decisions of each, learning rate.
LESSONS, CLASS, RATE = 40, 4, 5e-3


def dry(params: Params, folder: Path) -> Params:
    """The same parameters at the smallest size, with random models for those they name.

    The models are made in ``folder``. One behind a server keeps its name.

    Raises:
        QvlibError: a model of a family that is not known here.
    """
    small = params.model_copy(
        update={
            **CHANGES,
            "name": f"{params.name}-dry",
            "runs_dir": str(folder),
            "other_demonstrations": 40 if params.other_demonstrations else 0,
        }
    )
    if params.agent == SMALL:
        small = small.model_copy(update={"dpo_lr": params.dpo_lr, "demonstrations": 80})
    names = {key: getattr(params, key) for key in ("agent", "other_agent", "q_base")}
    return small.model_copy(
        update={
            key: str(_model(small, _family(name), folder))
            for key, name in names.items()
            if name and has_files(name)
        }
    )


def run(params: Params, folder: Path) -> Any:
    """All stages of a run at the smallest size, without its notebooks.

    Returns the table of the arms.

    folder: of the working files. Random models, once taught, serve again for other parameter files
    of the same world.

    Raises:
        QvlibError: a model of a family that is not known here, or whatever the run would raise.
    """
    from qvlib import pipeline
    from qvlib.report import numbers

    small = dry(params, folder)
    with ExitStack() as stack:
        small = small.model_copy(update=_agents(small, folder, stack))
        for stage in (
            pipeline.train_agents,
            pipeline.collect,
            pipeline.make_pairs,
            pipeline.train_q,
            pipeline.play,
        ):
            stage(small)
        return numbers.arm_table(small)


def _agents(params: Params, folder: Path, stack: ExitStack) -> dict[str, str]:
    """What the agents' parameters become.

    Taught models; for those that are served, the address of a server of one.
    """
    from qvlib.pipeline.models import load
    from qvlib.tools.dry_server import serving

    names = {
        "agent": params.agent,
        **({"other_agent": params.other_agent} if params.other_demonstrations else {}),
    }
    changed = {key: str(_taught(params, name)) for key, name in names.items() if has_files(name)}
    if any(map(is_remote, names.values())):
        model = load(params, _taught(params, _model(params, SERVED, folder)))
        changed["api_base_url"] = stack.enter_context(serving(model))
    return changed


def _taught(params: Params, model: str | Path) -> Path:
    """The folder of a random model that was taught a few demonstrated decisions.

    Made where it is missing.
    """
    import torch

    from qvlib.base.seeding import generator
    from qvlib.estimators.data import action_log_probs
    from qvlib.models.training import descend
    from qvlib.pipeline.models import load

    digest = params.model_copy(update={"agent": str(model)}).digest("agent")
    taught = Path(f"{model}-taught-{digest}")
    if taught.is_dir():
        return taught
    lm = load(params, model)
    prompts = [(lm.prompt(state), action) for state, action in _decisions(params)]
    rows = [(ids, lm.action_ids(prompt, action)) for (prompt, ids), action in prompts]
    optimizer = torch.optim.AdamW(lm.model.parameters(), lr=RATE)
    lm.model.train()
    for lesson in range(LESSONS):
        chosen = generator(params.seed, "lesson", lesson).integers(len(rows), size=CLASS)
        loss = -action_log_probs(lm.model, [rows[i] for i in chosen], "mean", lm.end).mean()
        descend(lm.model, optimizer, [loss], longest=None)
    lm.save(taught)
    return taught


def _family(name: str) -> str:
    for part, family in FAMILIES.items():
        if part in name.lower():
            return family
    known = ", ".join(sorted(set(FAMILIES.values())))
    raise QvlibError(f"{name}: no dry run for its family; known are {known}")


def _model(params: Params, family: str, folder: Path) -> Path:
    """The folder of a random model of a family and its tokenizer, made where it is missing."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from qvlib.base.seeding import generator
    from qvlib.models.local import quiet
    from qvlib.models.tokenizers import byte_level_bpe

    name = hashlib.blake2b(
        repr((params.digest("data"), family, SIZE, VOCABULARY)).encode(), digest_size=4
    ).hexdigest()
    path = folder / f"{family}-{name}"
    if path.is_dir():
        return path
    special = [END, *(f"<|{role}|>" for role in ROLES)]
    tokenizer = byte_level_bpe(
        _texts(params),
        VOCABULARY,
        end=END,
        special=special,
        chat_template=TEMPLATE,
        extra_special_tokens=special[1:],
    )
    config = AutoConfig.for_model(
        family,
        vocab_size=len(tokenizer),
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **SIZE,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(generator(params.seed, "weights", family).integers(2**31)))
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with quiet():
        model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def _texts(params: Params) -> Iterator[str]:
    """What a model of this world reads and writes: demonstrated episodes."""
    from qvlib import environments

    yield environments.instructions(params)
    for state, action in _decisions(params):
        task = "" if state.history else f"Task: {state.task.instruction}\n"
        yield f"{task}Observation: {state.observation}\nAction: {action}"


def _decisions(params: Params) -> Iterator[tuple[State, str]]:
    """States of demonstrated episodes, and what was done in each."""
    from qvlib import environments, pipeline
    from qvlib.core.episodes import decisions, demonstrate

    environment = pipeline.world(params)
    tasks = environment.tasks("train")[:TASKS]
    agent = environments.demonstrator(params, environment)
    records = demonstrate(environment, tasks, agent, params.seed, params.batch_size)
    for task, record in zip(tasks, records, strict=True):
        yield from decisions(environment, task, record["actions"])
