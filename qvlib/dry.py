"""A parameter file taken through all stages with small random models of the same architectures, in about a minute.

It shows that the file, the prompts, the training and the arms fit together; of the method it shows nothing. Models that
cannot be had here (a gated hub, a paid server) are what it is for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import QvlibError
from .params import Params

SIZE = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 4096}
FAMILIES = {  # part of a name, lower case -> transformers' model type
    "phi-3": "phi3", "phi3": "phi3", "phi-1": "phi", "phi-2": "phi", "llama": "llama", "smollm": "llama", "mistral": "mistral",
    "qwen2": "qwen2", "gpt-2": "gpt2", "gpt2": "gpt2"}
SERVED = "llama"  # stands for a model behind a server
ROLES = ("system", "user", "assistant")
END, TASKS, VOCABULARY = "<|end|>", 60, 2048
TEMPLATE = ("{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}" + END + "\n{% endfor %}"
            "{% if add_generation_prompt %}<|assistant|>\n{% endif %}")
CHANGES = {
    "data_dir": "", "catalogue_products": 400, "device": "cpu", "dtype": "float32", "processes": 1, "seeds": 1, "batch_size": 16,
    "warm_start": True, "warm_lr": 5e-3, "warm_rank": 0, "warm_batch": 4, "clone_epochs": 2, "demonstrations": 80,
    "prompt_tokens": 640, "cache_tokens": 20_000, "max_action_tokens": 24, "train_tasks": 10, "iterations": 6, "max_steps": 6, "rounds": 1,
    "test_tasks": 3, "test_skip": 0, "mcts_iterations": 2, "control_shuffles": 1, "heldout_share": 0.2, "pairs": "all_siblings", "min_margin": 0.0,
    "dpo_batch": 4, "dpo_lr": 1e-4, "rft_min_reward": 0.0, "rft_epochs": 1, "rule_tasks": 0,
    "grid": "", "bootstrap": 100, "wandb_mode": "disabled"}


def dry(params: Params, folder: Path) -> Params:
    """The same parameters at the smallest size, with random models made in ``folder`` in the place of those they name.

    Raises:
        QvlibError: a model of a family that is not known here.
    """
    small = params.model_copy(update={**CHANGES, "name": f"{params.name}-dry", "runs_dir": str(folder),
                                      "other_demonstrations": 40 if params.other_demonstrations else 0})
    names = {key: getattr(params, key) for key in ("agent", "other_agent", "q_base")}
    models = {key: str(_model(small, _family(name), folder)) for key, name in names.items() if name not in ("", "small")}
    if params.agent == "small":
        small = small.model_copy(update={"warm_start": False, "dpo_lr": params.dpo_lr})
    return small.model_copy(update=models)


def run(params: Params) -> Any:
    """All stages of a run without its notebooks; returns the table of the arms."""
    from . import pipeline, report

    for stage in (pipeline.train_agents, pipeline.collect, pipeline.make_pairs, pipeline.train_q, pipeline.play):
        stage(params)
    return report.arm_table(params)


def _family(name: str) -> str:
    from .models.names import is_remote

    if is_remote(name):
        return SERVED
    found = next((family for part, family in FAMILIES.items() if part in name.lower()), None)
    if found is None:
        raise QvlibError(f"{name}: no dry run for its family; known are {', '.join(sorted(set(FAMILIES.values())))}")
    return found


def _model(params: Params, family: str, folder: Path) -> Path:
    """The folder of a random model of a family and its tokenizer, made where it is missing."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from .models.local import quiet
    from .seeding import generator

    name = hashlib.blake2b(repr((params.digest("data"), family, SIZE, VOCABULARY)).encode(), digest_size=4).hexdigest()
    made = folder / f"{family}-{name}"
    if made.is_dir():
        return made
    tokenizer = _tokenizer(_texts(params))
    config = AutoConfig.for_model(family, vocab_size=len(tokenizer), bos_token_id=None, eos_token_id=tokenizer.eos_token_id,
                                  pad_token_id=tokenizer.pad_token_id, **SIZE)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(generator(params.seed, "weights", family).integers(2**31)))
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with quiet():
        model.save_pretrained(made)
    tokenizer.save_pretrained(made)
    return made


def _texts(params: Params) -> Iterator[str]:
    """What a model of this world reads and writes: demonstrated episodes."""
    from . import environments, pipeline
    from .evaluate import episode
    from .lockstep import lockstep

    environment = pipeline.world(params)
    jobs = (episode(environment, task, params.seed) for task in environment.tasks("train")[:TASKS])
    tasks = {task.id: task for task in environment.tasks("train")[:TASKS]}
    yield environments.instructions(params)
    for record in lockstep(jobs, environments.demonstrator(params, environment), params.batch_size):
        state = environment.reset(tasks[record["task"]])
        yield f"Task: {state.task.instruction}\nObservation: {state.observation}"
        for action in record["actions"]:
            state = environment.step(state, action)
            yield f"Action: {action}\nObservation: {state.observation}"


def _tokenizer(texts: Iterator[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = [END, *(f"<|{role}|>" for role in ROLES)]
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=END, padding_side="left",
                                   chat_template=TEMPLATE, extra_special_tokens=special[1:], clean_up_tokenization_spaces=False)
