"""What a finished run has counted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qvlib.agents.arms import FORMER
from qvlib.agents.scripted import SCRIPTS
from qvlib.base.errors import QvlibError
from qvlib.base.paths import display_path, resolve
from qvlib.core.preferences import least_visits
from qvlib.pipeline.params import Params

TRIES = {
    "best_of_n": "best_of",
    "beam": "beam_width",
    "best_first": "best_first_steps",
    "lats": "lats_iterations",
    "reflexion": "reflexion_trials",
    "reflexion_q": "reflexion_trials",
}
"""Arms that try in the environment first -> the parameter that says how much."""

ALIKE = {
    "other_agent_sample": "sample",
    "other_agent_q_n5": "q_n5",
    "other_agent_foreign_q_n5": "q_n5",
    **dict.fromkeys(("rft", "agent_evol", "eto"), "sample"),
    **dict.fromkeys(("likely_n5", "self_consistency_n5"), "random_n5"),
    "saycan_n5": "q_n5",
    **dict.fromkeys(("foreign_q_n5", "kind_only_n5", "within_kind_n5", "oracle_n5"), "q_n5"),
    **dict.fromkeys(("foreign_q_n10", "kind_only_n10", "within_kind_n10"), "q_n10"),
    **dict.fromkeys(("likely_n10", "oracle_n10"), "q_n10"),
}
"""Arms -> the arm that asks as much of the agent."""

Rule = tuple[str, float, int]
"""Which pairs, the least margin of their values, the least visits of each."""


@dataclass(frozen=True)
class Work:
    """Means a task: steps in the environment, prompts asked, replies to them."""

    steps: float
    prompts: float
    replies: float


@dataclass(frozen=True)
class Pace:
    """Seconds on the machine of a finished run, its processes together.

    demonstration: of cloning, or a warm start, one demonstration in one epoch. tree: a search.
    pair: fitting one model, a training pair. token: of an episode, read or written by the agent,
    with what the Q model reads of it. cpus: of that machine. fitted: whose fitting it is, in words.
    epochs: of that fitting; 0 = of several estimators, each its own.
    """

    demonstration: float
    tree: float
    pair: float
    token: float
    cpus: int
    fitted: str
    epochs: int = 1


@dataclass(frozen=True)
class Measured:
    """What a finished run has counted.

    search: collecting a tree. arms: by name as they are called now, ``search`` among them.
    iterations, arm_iterations: of the two searches. tries: how much the arms of ``TRIES`` try.
    refused: share of the draws that were dropped and drawn again, where it ``filtered`` them.
    pairs: a tree, by the rule ``rule``; rules: by each that it tried, (rule, margin, visits).
    prompt, reply: tokens of a prompt and of a reply in arm
    ``greedy``. speed: tokens a second of its agent in collecting. pace: None of a run that does not
    tell it.
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
    tries: Mapping[str, int] = field(default_factory=dict)
    expand_at: str = "second_visit"
    filtered: bool = True
    pace: Pace | None = None
    rules: Mapping[Rule, float] = field(default_factory=dict)

    def pairs_a_tree(self, settings: Any) -> float:
        """By a run's settings of pairs where it tried them, else ``pairs``."""
        return self.rules.get(_rule(settings), self.pairs)


_OF_SMALL_AGENTS = {"webshop": "quick", "hotpotqa": "hotpotqa-quick", "textworld": "textworld"}
"""World -> the name of a run of the small agent in it."""


def nearest(params: Params) -> str:
    """The folder of results to reckon from: the run's own, else of a run with such an agent.

    One that played all arms of the file goes before one that did not; the last two play most arms.
    """
    names = ["smollm2-mini", "quick"]
    if params.agent.agent == "small":
        names.insert(0, _OF_SMALL_AGENTS.get(params.world.environment, "quick"))
    own = f"{params.run.results_dir}/{params.run.name}"
    folders = [own, *(f"results/{name}" for name in (*names, "smoke", "value-search"))]
    there = [name for name in folders if (resolve(name) / "metrics.json").exists()]
    return next((name for name in there if _has_arms(name, params)), [*there, "results/quick"][0])


def _has_arms(folder: str, params: Params) -> bool:
    """Whether these results tell what each arm of the file asks of a model."""
    try:
        played = json.loads((resolve(folder) / "metrics.json").read_bytes())["arms"]
    except (ValueError, KeyError, TypeError):
        return True  # damaged: ``measured`` says how
    known = {FORMER.get(name, name) for name in played}
    wanted = {arm.name for arm in params.arms() if arm not in SCRIPTS}
    if params.ablations.baselines:
        from qvlib.pipeline import baselines  # brings heavy libraries along

        wanted |= {one.name for one in baselines.read(params)}
    return all(known & {name, ALIKE.get(name)} for name in wanted)


def measured(folder: str | Path, params: Params) -> Measured:
    """The counts of a rendered run.

    From ``metrics.json``, ``manifest.json`` and ``tables/pair_rules.csv`` of its folder. A prompt
    is as long as the mean prompt of arm ``greedy``, which asks once a step, and so is a reply.

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

        def work(row: Mapping[str, float]) -> Work:
            return Work(row["env_steps"], row["prompt_tokens"] / prompt, row["tokens"] / reply)

        collecting = {
            count: cost[f"collecting_{count}"] / trees
            for count in ("env_steps", "prompt_tokens", "tokens")
        }
        rules, preferences = _rules(folder), metrics["preferences"]
        own = (preferences["pairs"] + preferences["held_out_pairs"]) / trees
        tried = _rule(params.pairs) in rules
        read_and_written = cost["collecting_tokens"] + cost["collecting_prompt_tokens"]
        return Measured(
            name=given["name"],
            environment=given["environment"],
            agent=given["agent"],
            search=work(collecting),
            arms={FORMER.get(name, name): work(row) for name, row in arms.items()},
            iterations=given["iterations"],
            arm_iterations=given[
                "search_iterations" if "search_iterations" in given else "mcts_iterations"
            ],
            expand_n=given["expand_n"],
            refused=arms["sample"]["refused_share"],
            pairs=rules.get(_rule(params.pairs), own),
            rule=params.pairs.pairs if tried else given["pairs"],
            prompt=prompt,
            reply=reply,
            speed=read_and_written / cost["trees_seconds"],
            tries={arm: given[name] for arm, name in TRIES.items() if given.get(name)},
            expand_at=given.get("expand_at", "second_visit"),
            filtered=given.get("filter_actions", True),
            pace=_pace(metrics, manifest),
            rules=rules,
        )
    except (FileNotFoundError, NotADirectoryError) as error:
        raise QvlibError(
            f"{display_path(folder)}: no results of a run ({Path(error.filename).name} is "
            "missing); give a folder of results with --from"
        ) from None
    except (ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        raise QvlibError(
            f"{display_path(folder)}: {type(error).__name__} {error} in its metrics.json or "
            "manifest.json; run notebooks/07_report.ipynb of that run again"
        ) from None


def _rules(folder: Path) -> dict[Rule, float]:
    """Pairs a tree by each rule that the run tried."""
    import pandas as pd

    path = folder / "tables" / "pair_rules.csv"
    if not path.exists():
        return {}
    try:
        rows = pd.read_csv(path)[["rule", "min margin", "min visits", "pairs a tree"]]
    except (ValueError, KeyError) as error:
        raise QvlibError(
            f"{display_path(path)}: {type(error).__name__} {error}; run "
            "notebooks/06_ablations.ipynb of that run again"
        ) from None
    return {
        (rule, margin, visits): float(pairs)
        for rule, margin, visits, pairs in rows.itertuples(index=False, name=None)
    }


def _rule(pairs: Any) -> Rule:
    return pairs.pairs, pairs.min_margin, least_visits(pairs.pairs, pairs.min_visits)


def _pace(metrics: Mapping[str, Any], manifest: Mapping[str, Any]) -> Pace | None:
    """How long the run's stages took; None where it does not tell, or tuned no agent."""
    cost, given = metrics["cost"], manifest["parameters"]
    needed = ("agent", "trees", "q_model", "control", "episodes")
    tuned = given["agent"] == "small" or given.get("warm_start")
    if not all(cost.get(f"{kind}_seconds") for kind in needed) or not tuned:
        return None
    chains = given.get("seeds", 1)
    pairs = metrics["preferences"]["pairs"] / chains
    cpus = manifest["machine"]["cpus"]
    # Q models and controls are fitted side by side.
    models = chains * (1 + given["control_shuffles"])
    fit, fitted = max(cost["q_model_seconds"], cost["control_seconds"]) / models, "its Q models"
    epochs = given.get("dpo_epochs") or given.get("fit_epochs") or 1
    times = [e["cost"]["fit_seconds"] for e in metrics.get("estimators", {}).values()]
    if times and all(times):
        fit, fitted = sum(times) / len(times) / cpus, "its estimators, on the mean"
        epochs = 0
    return Pace(
        demonstration=cost["agent_seconds"]
        / (chains * given["demonstrations"] * given["clone_epochs"]),
        tree=cost["trees_seconds"] / metrics["preferences"]["trees"],
        pair=fit / pairs,
        token=cost["episodes_seconds"]
        / (cost["evaluating_tokens"] + cost["evaluating_prompt_tokens"]),
        cpus=cpus,
        fitted=fitted,
        epochs=epochs,
    )
