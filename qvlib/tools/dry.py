"""A parameter file taken through all stages in about a minute of CPU time.

With small random models of the same architectures. Each estimator that is compared takes a few
seconds more.

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

import yaml

from qvlib.base.errors import QvlibError
from qvlib.core.types import State
from qvlib.models.names import SMALL, has_files, is_remote
from qvlib.pipeline import tuning
from qvlib.pipeline.context import Context
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
    "curriculum_pool": 0,
    "evaluator": "environment",  # random models give no verdicts
    "test_tasks": 2,
    "test_skip": 0,
    "search_iterations": 2,
    "control_shuffles": 1,
    "heldout_share": 0.4,
    # Random models earn nothing: what is refused is told from what is cut off.
    "refused_actions": "end",
    "unvisited_value": "zero",
    "pairs": "all_siblings",
    "min_margin": 0.0,
    "dpo_batch": 8,
    "dpo_lr": 1e-4,
    "rft_min_reward": 0.0,
    "rft_epochs": 1,
    "eto_epochs": 1,
    "rule_tasks": 0,
    "grid": "",
    "bootstrap": 100,
    "wandb_mode": "disabled",
    "api_key_variable": "",
    "api_cache": "",
    "api_offline": False,
    "api_in_flight": 4,
    "api_timeout": 600.0,
    "api_deadline": 600.0,
}
COMPARED = {  # where estimators are compared: trees reach the last step, and tell its ends apart
    "max_steps": 2,
    "iterations": 24,
    "wrong_end_value": -1.0,
    "timeout_value": 0.0,
    "trial_tasks": 2,
}
OWN_TREES = {"rft", "eto"}
"""What arms need that are tuned on their own trees."""
OF_ESTIMATORS = {"success_reward": 0.0, "right_above": -1.0}
"""Of those that have them: what is cut off is worth 0, and what is refused or ends less."""
MOST = {  # of arms that try in the environment first, where they are played
    "best_first_steps": 8,
    "lats_iterations": 1,
    "reflexion_trials": 2,
}
# Batches of decisions that a random model is taught, decisions of each, learning rate.
LESSONS, CLASS, RATE = 25, 4, 5e-3


def dry(params: Params, folder: Path) -> Params:
    """The same parameters at the smallest size, with random models for those they name.

    The models are made in ``folder``. One behind a server keeps its name.

    Raises:
        QvlibError: a model of a family that is not known here.
    """
    given = params.flat()
    changes = {name: value for name, value in CHANGES.items() if name in given}
    changes |= {name: min(most, given[name]) for name, most in MOST.items()}
    if params.agent.agent == SMALL:
        changes |= {"demonstrations": 80} | {n: given[n] for n in ("dpo_lr",) if n in given}
    if params.other_agent.other_demonstrations:
        changes["other_demonstrations"] = 40
    if params.ablations.compare:
        changes |= COMPARED | {"compare": str(_comparison(params, folder))}
    if params.ablations.baselines:
        changes |= COMPARED | {"baselines": str(_baselines(params, folder))}
    small = params.replace(**changes, name=f"{params.run.name}-dry", runs_dir=str(folder))
    names = {key: given[key] for key in ("agent", "other_agent", "q_base")}
    models = {
        key: str(_model(small, _family(name), folder))
        for key, name in names.items()
        if name and has_files(name)
    }
    return small.replace(**models)


def _comparison(params: Params, folder: Path) -> Path:
    """A file of one try of each estimator that is compared, the first, with no model named.

    Without the published form: its pairs lie along a path that earns something.
    """
    lines = {}
    for one in reversed(tuning.read(params)):
        known = one.params.flat()
        told = {key: value for key, value in one.change.items() if key != "q_base"}
        told |= {key: value for key, value in OF_ESTIMATORS.items() if key in known}
        if one.name != tuning.PUBLISHED:
            lines[one.name] = [told]
    path = folder / "compared.yml"
    path.write_text(yaml.safe_dump(lines or {"step_dpo": [{}]}))
    return path


def _baselines(params: Params, folder: Path) -> Path:
    """A file of one try of each arm that is tuned, the first, as small as it goes."""
    from qvlib.pipeline import baselines

    lines = {}
    for one in reversed(baselines.read(params)):
        least = {name: value for name, value in {**CHANGES, **MOST}.items() if name in one.change}
        lines[one.name] = [{**one.change, **least}]
    path = folder / "baselines.yml"
    path.write_text(yaml.safe_dump(lines))
    return path


def run(params: Params, folder: Path) -> Any:
    """All stages of a run at the smallest size, without its notebooks.

    Returns the table of the arms. Where estimators or arms are compared, one try of each is made
    and played.

    folder: of the working files. Random models, once taught, serve again for other parameter files
    of the same world.

    Raises:
        QvlibError: a model of a family that is not known here, an estimator or an arm that cannot
            be compared, or whatever the run would raise.
    """
    from qvlib import pipeline
    from qvlib.pipeline import baselines, comparison
    from qvlib.report import numbers

    small = dry(params, folder)
    with ExitStack() as stack:
        small = small.replace(**_agents(small, folder, stack))
        pipeline.until("episodes", small)
        if small.ablations.compare:
            for name, why in comparison.run(small).failed.items():
                raise QvlibError(f"{params.ablations.compare}, {name}: {why}")
        if small.ablations.baselines:
            for name, why in baselines.run(small).failed.items():
                if not OWN_TREES & {*small.arm(name).needs}:
                    raise QvlibError(f"{params.ablations.baselines}, {name}: {why}")
                print(f"{name} was not tuned, since random models may earn nothing: {why}")
        return numbers.arm_table(small)


def _agents(params: Params, folder: Path, stack: ExitStack) -> dict[str, str]:
    """What the agents' parameters become.

    Taught models; for those that are served, the address of a server of one.
    """
    from qvlib import pipeline
    from qvlib.pipeline.models import load
    from qvlib.tools.dry_server import serving

    names = {
        "agent": params.agent.agent,
        **(
            {"other_agent": params.other_agent.other_agent}
            if params.other_agent.other_demonstrations
            else {}
        ),
    }
    changed = {key: str(_taught(params, name)) for key, name in names.items() if has_files(name)}
    if any(map(is_remote, names.values())):
        taught = _taught(params, _model(params, SERVED, folder))
        model = load(pipeline.context_of(params), taught)
        changed["api_base_url"] = stack.enter_context(serving(model))
    return changed


def _taught(params: Params, model: str | Path) -> Path:
    """The folder of a random model that was taught a few demonstrated decisions.

    Made where it is missing.
    """
    import torch

    from qvlib import pipeline
    from qvlib.base.seeding import generator
    from qvlib.estimators.data import action_log_probs
    from qvlib.models.training import descend
    from qvlib.pipeline.models import load

    digest = params.replace(agent=str(model)).digest("agent")
    taught = Path(f"{model}-taught-{digest}")
    if taught.is_dir():
        return taught
    context = pipeline.context_of(params)
    lm = load(context, model)
    prompts = [(lm.prompt(state), action) for state, action in _decisions(context)]
    rows = [(ids, lm.action_ids(prompt, action)) for (prompt, ids), action in prompts]
    optimizer = torch.optim.AdamW(lm.model.parameters(), lr=RATE)
    lm.model.train()
    for lesson in range(LESSONS):
        chosen = generator(params.run.seed, "lesson", lesson).integers(len(rows), size=CLASS)
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

    from qvlib import pipeline
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
        _texts(pipeline.context_of(params)),
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
        torch.manual_seed(int(generator(params.run.seed, "weights", family).integers(2**31)))
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with quiet():
        model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def _texts(context: Context) -> Iterator[str]:
    """What a model of this world reads and writes: demonstrated episodes."""
    yield context.world.instructions
    for state, action in _decisions(context):
        task = "" if state.history else f"Task: {state.task.instruction}\n"
        yield f"{task}Observation: {state.observation}\nAction: {action}"


def _decisions(context: Context) -> Iterator[tuple[State, str]]:
    """States of demonstrated episodes, and what was done in each."""
    from qvlib.core.episodes import decisions, demonstrate

    environment, run = context.environment, context.params.run
    tasks = environment.tasks("train")[:TASKS]
    records = demonstrate(environment, tasks, context.demonstrator(), run.seed, run.batch_size)
    for task, record in zip(tasks, records, strict=True):
        yield from decisions(environment, task, record["actions"])
