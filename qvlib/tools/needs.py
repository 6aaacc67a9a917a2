"""What a run of a parameter file needs: GPU memory, tokens, hours and USD, reckoned from what a finished run has counted.

The finished run gives steps, prompts and replies a task, in the search and in each arm; the file's own world gives the
length of a prompt; the file gives tasks, iterations and candidates. Nothing is run, and no model is loaded.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qvlib.base.errors import QvlibError
from qvlib.base.paths import display_path, resolve
from qvlib.models.names import is_remote
from qvlib.pipeline.params import Params
from qvlib.tools import gpu_memory

CHARACTERS = 4  # a token, where there is no tokenizer
TASKS = 40  # demonstrated to measure prompts


@dataclass(frozen=True)
class Work:
    """Means a task: steps in the environment, prompts asked, replies to them."""

    steps: float
    prompts: float
    replies: float


@dataclass(frozen=True)
class Measured:
    """What a finished run has counted.

    search: collecting a tree. arms: by name, ``mcts`` among them. iterations, arm_iterations: of the two searches. best_of: episodes of ``best_of_n``.
    refused: share of the draws that were dropped and drawn again. pairs: a tree, by the rule ``rule``.
    prompt, reply: tokens of a prompt and of a reply in arm ``greedy``. speed: tokens a second of its agent in collecting.
    """

    name: str
    environment: str
    agent: str
    search: Work
    arms: Mapping[str, Work]
    iterations: int
    arm_iterations: int
    expand_n: int
    refused: float
    pairs: float
    rule: str
    prompt: float
    reply: float
    speed: float
    best_of: int = 0


@dataclass(frozen=True)
class Lengths:
    """Mean tokens of a prompt, of an action and of a reply; ``origin``: where they are from."""

    prompt: float
    action: float
    reply: float
    origin: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tokens:
    """One part of a run. q: tokens that the Q model and its reference read. who: agent, other_agent, or q_base, which trains."""

    part: str
    who: str
    tasks: int
    prompts: float
    prompt: float
    completion: float
    q: float


def measured(folder: str | Path, params: Params) -> Measured:
    """The counts of a rendered run, from ``metrics.json``, ``manifest.json`` and ``tables/pair_rules.csv`` of its folder.

    A prompt is as long as the mean prompt of arm ``greedy``, which asks once a step, and so is a reply.

    Raises:
        QvlibError: no such results, or a file misses what is needed.
    """
    folder = resolve(folder)
    try:
        metrics, manifest = (
            json.loads((folder / f"{name}.json").read_bytes()) for name in ("metrics", "manifest")
        )
        arms, cost, given = metrics["arms"], metrics["cost"], manifest["parameters"]
        greedy, trees = arms["greedy"], metrics["preferences"]["trees"]
        prompt, reply = (
            greedy[count] / greedy["env_steps"] for count in ("prompt_tokens", "tokens")
        )
        searched = {
            count: cost[f"collecting_{count}"] / trees
            for count in ("env_steps", "prompt_tokens", "tokens")
        }
        works = {
            name: Work(row["env_steps"], row["prompt_tokens"] / prompt, row["tokens"] / reply)
            for name, row in {**arms, "": searched}.items()
        }
        pairs, rule = _pairs(folder, metrics, given, trees, params)
        return Measured(
            given["name"],
            given["environment"],
            given["agent"],
            works.pop(""),
            works,
            given["iterations"],
            given["mcts_iterations"],
            given["expand_n"],
            arms["sample"]["refused_share"],
            pairs,
            rule,
            prompt,
            reply,
            (cost["collecting_tokens"] + cost["collecting_prompt_tokens"]) / cost["trees_seconds"],
            given.get("best_of", 0),
        )
    except FileNotFoundError as error:
        raise QvlibError(
            f"{display_path(folder)}: no results of a run ({Path(error.filename).name} is missing); give a folder of "
            "results with --from"
        ) from None
    except (ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        raise QvlibError(
            f"{display_path(folder)}: {type(error).__name__} {error} in its metrics.json or manifest.json; run "
            "notebooks/07_report.ipynb of that run again"
        ) from None


def _pairs(
    folder: Path, metrics: Mapping[str, Any], given: Mapping[str, Any], trees: int, params: Params
) -> tuple[float, str]:
    """Pairs a tree: by the file's own rule and margin where the run tried them, else by the run's."""
    import pandas as pd

    table = folder / "tables" / "pair_rules.csv"
    if table.exists():
        rows = pd.read_csv(table)
        rows = rows[
            (rows["rule"] == params.pairs)
            & (rows["min margin"] == params.min_margin)
            & (rows["min visits"] == max(1, params.min_visits))
        ]
        if len(rows):
            return float(rows["pairs a tree"].iloc[0]), params.pairs
    found = metrics["preferences"]
    return (found["pairs"] + found["held_out_pairs"]) / trees, given["pairs"]


def lengths(params: Params, run: Measured | None = None, reply: float | None = None) -> Lengths:
    """Mean lengths over episodes of the world's scripted demonstrator, in the file's own conversation.

    The world is the file's; where its data are not here, an embedded one. run: where it is of the same agent in the same
    environment, prompts and replies are as long as there. reply: tokens of a reply that were measured.

    Raises:
        QvlibError: the data are broken, or the environment has no demonstrator.
    """
    from qvlib import environments
    from qvlib.core.episodes import decisions, demonstrate
    from qvlib.models.chat import Chat
    from qvlib.models.prompts import compact
    from qvlib.pipeline.models import examples

    with tempfile.TemporaryDirectory(prefix="qvlib-needs-") as folder:
        here = not params.data_dir or resolve(params.data_dir).is_dir()
        own = (
            params
            if here
            else params.model_copy(
                update={"data_dir": "", "goals": "synthetic", "title_nouns": "auto"}
            )
        )
        if not own.data_dir:
            environments.make_data(own, Path(folder))
        world = environments.make(own, Path(folder))
        tasks = world.tasks("train")[:TASKS]
        chat = Chat(
            None,
            environments.instructions(own),
            lambda task: world.reset(task).observation,
            examples(own, world),
            own.thoughts,
        )
        count, counted = _counter(params.agent)
        prompts, actions = [], []
        demonstrator = environments.demonstrator(own, world)
        records = demonstrate(world, tasks, demonstrator, own.seed, own.batch_size)
        for task, record in zip(tasks, records, strict=True):
            for state, action in decisions(world, task, record["actions"]):
                said = [m["content"] for m in chat.messages(state)]
                text = compact(state).text if params.agent == "small" else "\n".join(said)
                prompts.append(
                    count(text)
                    if is_remote(params.agent)
                    else min(count(text), params.prompt_tokens)
                )
                actions.append(count(action))
    mean, action = sum(prompts) / len(prompts), sum(actions) / len(actions)
    where = display_path(resolve(own.data_dir)) if own.data_dir else "the embedded world"
    where += "" if here else f", since {params.data_dir} is not here"
    origin = [
        f"a prompt has {mean:,.0f} tokens, an action {action:,.1f}: means over {len(prompts)} demonstrated steps in {where}, "
        f"{counted}, without what a chat template adds"
    ]
    if run and (run.agent, run.environment) == (params.agent, params.environment):
        mean = run.prompt
        origin = [
            f"a prompt has {mean:,.0f} tokens, as in arm greedy of that run",
            f"an action has {action:,.1f} tokens: {origin[0].split(': ', 1)[1]}",
        ]
    else:
        run = None
    if reply is not None:
        origin.append(f"a reply has {reply:g} tokens: as given")
    elif run:
        reply = run.reply
        origin.append(f"a reply has {reply:,.1f} tokens, as in arm greedy of that run")
    elif params.thoughts:
        reply = params.max_action_tokens
        origin.append(
            f"a reply has {reply} tokens, the most that max_action_tokens allows, since thoughts are of no known length; "
            "--reply-tokens gives a measured one"
        )
    else:
        reply = min(action + 1, params.max_action_tokens)
        origin.append("a reply is an action and the token that ends it")
    return Lengths(mean, action, reply, tuple(origin))


def _counter(name: str) -> tuple[Any, str]:
    """(text -> tokens, how that is counted): by the model's tokenizer if it lies on this machine."""
    if name != "small" and not is_remote(name):
        from transformers import AutoTokenizer

        from qvlib.pipeline.models import found

        try:
            tokenizer = AutoTokenizer.from_pretrained(found(name), local_files_only=True)
            return lambda text: len(
                tokenizer(text, add_special_tokens=False)["input_ids"]
            ), f"by the tokenizer of {name}"
        except (OSError, ValueError):
            pass
    return (
        lambda text: len(text) / CHARACTERS,
        f"{CHARACTERS} characters counted as a token (the tokenizer of {name} is not here)",
    )


def tokens(params: Params, run: Measured, length: Lengths) -> list[Tokens]:
    """What each part of a run reads and writes, all chains and shuffles together."""
    from qvlib.pipeline.episodes import arm_names

    trees = params.rounds * params.train_tasks * params.seeds
    search = _scaled(run.search, run, params, params.iterations / run.iterations)
    rows = [_part("collecting", "agent", trees, search, length, params)]
    pairs = trees * run.pairs
    # The pass forward and the two-fold work backward in each epoch, and the reference once; both replies after their prompt.
    passes, replies = (
        3 * params.dpo_epochs + 1,
        2 * length.prompt if params.trainer == "trl" else length.prompt,
    )
    trained = pairs * passes * (replies + 2 * length.action)
    rows.append(
        Tokens(
            "training Q and controls",
            "q_base",
            round(pairs),
            0,
            0,
            0,
            trained * (1 + params.control_shuffles),
        )
    )
    for name, shuffles in _shuffles(arm_names(params)).items():
        work = _arm(name, run, params)
        who = "other_agent" if name.startswith("other_agent") else "agent"
        rows.append(
            _part(
                f"arm {name}",
                who,
                params.test_tasks * params.seeds * shuffles,
                work,
                length,
                params,
            )
        )
    return rows


def _shuffles(names: list[str]) -> dict[str, int]:
    """Arm -> how often it is played: a control once a shuffle."""
    bases = [name.split("/")[0] for name in names]
    return {base: bases.count(base) for base in bases}


def _arm(name: str, run: Measured, params: Params) -> Work:
    """A task of an arm; one that the run had not is as the same arm of its first agent."""
    other = {"other_agent_sample": "sample", "other_agent_q_n5": "q_n5", "likely_n5": "random_n5"}
    if name not in run.arms and other.get(name) not in run.arms:
        raise QvlibError(
            f"results {run.name!r} have no arm {name!r}; give other results with --from"
        )
    work = run.arms.get(name) or run.arms[other[name]]
    if name == "mcts":
        return _scaled(work, run, params, params.mcts_iterations / run.arm_iterations)
    if name == "best_of_n":  # whole episodes, each as long as those of the run
        redrawn = 0.0 if params.filter_actions else work.replies * run.refused
        longer = (
            params.best_of / run.best_of * min(1.0, params.max_steps * run.best_of / work.steps)
        )
        return Work(
            work.steps * longer,
            (work.prompts - redrawn) * longer,
            (work.replies - redrawn) * longer,
        )
    steps = min(work.steps, params.max_steps)
    if params.filter_actions:
        return Work(steps, work.prompts * steps / work.steps, work.replies * steps / work.steps)
    return Work(steps, steps, steps * _candidates(name))


def _candidates(name: str) -> int:
    found = re.search(r"_n(\d+)$", name)
    return int(found[1]) if found else 1


def _scaled(work: Work, run: Measured, params: Params, longer: float) -> Work:
    """A search of other iterations and candidates: ``expand_n`` replies at an expansion, one at a step of a rollout.

    Where the file does not draw again what is refused, the run's redraws, each a prompt and a reply, are taken off. Of the
    trees of ``quick`` that gives 65 prompts and 123 replies; their own nodes and proposals count 58 and 113.
    """
    redrawn = 0.0 if params.filter_actions else work.replies * run.refused
    prompts, replies = work.prompts - redrawn, work.replies - redrawn
    expansions = (replies - prompts) / (run.expand_n - 1) if run.expand_n > 1 else 0.0
    return Work(
        work.steps * longer,
        prompts * longer,
        (replies + (params.expand_n - run.expand_n) * expansions) * longer,
    )


def _part(part: str, who: str, tasks: int, work: Work, length: Lengths, params: Params) -> Tokens:
    prompts = tasks * (
        work.replies if is_remote(getattr(params, who)) and params.api_n == "each" else work.prompts
    )
    read = work.prompts * length.prompt + work.replies * length.action
    scored = 2 * tasks * read if "q_n" in part else 0.0  # by the Q model and by its reference
    if part == "arm tuned_policy":  # the Q model samples
        return Tokens(
            part,
            "q_base",
            tasks,
            0,
            0,
            0,
            tasks * (work.prompts * length.prompt + work.replies * length.reply),
        )
    return Tokens(
        part,
        who,
        tasks,
        prompts,
        prompts * length.prompt,
        tasks * work.replies * length.reply,
        scored,
    )


def usd(params: Params, row: Tokens) -> float | None:
    """What a server bills for a part; None where no server does the work or no price is given."""
    if (
        row.who == "q_base"
        or not is_remote(getattr(params, row.who))
        or not (params.api_price_prompt or params.api_price_completion)
    ):
        return None
    return (
        row.prompt * params.api_price_prompt + row.completion * params.api_price_completion
    ) / 1e6


def report(
    params: Params,
    run: Measured,
    length: Lengths,
    speed: float | None = None,
    q_speed: float | None = None,
) -> str:
    """Two tables, and where each of their numbers is from.

    speed, q_speed: tokens a second that the agent's model and the Q model read and write; without one, hours are left out.
    """
    import pandas as pd

    from qvlib.report.tables import markdown

    same = run.agent == params.agent
    pace = {"agent": speed or (run.speed if same else None), "q": q_speed}
    parts = tokens(params, run, length)
    hours = [_hours(part, pace) for part in parts]
    bills = [usd(params, part) for part in parts]
    rows = [
        {
            "part": part.part,
            "tasks": f"{part.tasks:,}",
            "prompts": f"{part.prompts:,.0f}" if part.prompts else "",
            "prompt tokens": _millions(part.prompt),
            "completion tokens": _millions(part.completion),
            "Q's tokens": _millions(part.q),
            "hours": "" if h is None else f"{h:,.1f}",
            "USD": "" if bill is None else f"{bill:,.2f}",
        }
        for part, h, bill in zip(parts, hours, bills, strict=True)
    ]
    known = [bill for bill in bills if bill is not None]
    rows.append(
        {
            "part": "in all",
            "tasks": "",
            "prompts": f"{sum(p.prompts for p in parts):,.0f}",
            **{
                title: _millions(sum(getattr(p, key) for p in parts))
                for title, key in (
                    ("prompt tokens", "prompt"),
                    ("completion tokens", "completion"),
                    ("Q's tokens", "q"),
                )
            },
            "hours": "" if None in hours else f"{sum(hours):,.1f}",
            "USD": f"{sum(known):,.2f}" if known else "",
        }
    )
    table = pd.DataFrame(rows)
    empty = [title for title in ("hours", "USD") if not any(table[title])]
    gpu = pd.DataFrame(
        [
            {
                "GPU, GB": part,
                **{k: f"{v / 1e9:.1f}" for k, v in row.items()},
                "in all": f"{sum(row.values()) / 1e9:.1f}",
            }
            for part, row in gpu_memory.memory(params).items()
        ]
    )
    notes = "\n".join(f"- {note}." for note in _notes(params, run, length, pace, same, bool(known)))
    return f"{markdown(gpu)}\n\n{markdown(table.drop(columns=empty))}\n\nWhere these numbers are from:\n{notes}"


def _millions(count: float) -> str:
    return f"{count / 1e6:,.2f} M" if count else ""


def _hours(part: Tokens, pace: Mapping[str, float | None]) -> float | None:
    seconds = 0.0
    for amount, by in ((part.prompt + part.completion, part.who), (part.q, "q")):
        if amount and not pace.get(by):
            return None
        seconds += amount / pace[by] if amount else 0.0
    return seconds / 3600


def _notes(
    params: Params,
    run: Measured,
    length: Lengths,
    pace: Mapping[str, float | None],
    same: bool,
    billed: bool,
) -> list[str]:
    other = (
        ""
        if run.environment == params.environment
        else f"; this file is of {params.environment}: give results of one with --from"
    )
    notes = [
        "GPU: the formulas of qvlib/gpu_memory.py; GB are 10^9 bytes; what the framework itself takes is not counted",
        f"steps, prompts and replies a task: results {run.name} ({run.environment}, agent {run.agent}{other}), its searches of "
        f"{run.iterations} and {run.arm_iterations} iterations stretched to {params.iterations} and {params.mcts_iterations}, "
        "as often ended by a success; a prompt and a reply there are as long as in its arm greedy",
        *length.origin,
        f"{run.pairs:.2f} pairs a tree, in that run by the rule {run.rule}"
        + ("" if run.rule == params.pairs else f" (this file: {params.pairs})"),
        "Q's tokens: what the Q model and its reference read; in training, a pass forward, twice that backward, and the reference once",
    ]
    if not params.filter_actions:
        notes.insert(
            2,
            f"that run drew again what was refused ({run.refused:.0%} of its draws); this file does not, which is taken off",
        )
    speeds = [
        (pace["agent"], "the agent", "--tokens-per-second", same and pace["agent"] == run.speed),
        (pace["q"], "the Q model", "--q-tokens-per-second", False),
    ]
    for speed, who, option, known in speeds:
        origin = "as in the collecting of that run" if known else "as given"
        notes.append(
            f"hours: {speed:,.0f} tokens a second of {who}, {origin}, whatever is kept from prompt to prompt"
            if speed
            else f"no hours of {who} without its speed on your machine: {option}"
            + (
                "; results of a short run with this agent, given with --from, tell it too"
                if who == "the agent"
                else ""
            )
        )
    if params.rounds > 1 or params.rule_tasks or params.grid or params.warm_start:
        notes.append(
            "not counted: warm starts, scoring rules, grids, and the Q model's work in rounds after the first"
        )
    if billed:
        notes.append(
            f"USD: {params.api_price_prompt:g} a million prompt tokens, {params.api_price_completion:g} a million completion "
            "tokens, from the parameter file: look up today's"
        )
    return notes
