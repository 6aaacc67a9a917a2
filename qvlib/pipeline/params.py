"""The parameters of a run: sections that functions take, one flat list for whoever types.

A YAML file, papermill and a notebook cell name parameters without their sections. A section belongs
to what it configures: the chosen world, the chosen estimator and each arm bring their own, with
their own defaults; what is not chosen has no parameters and decides nothing. Each parameter
names the stage whose outcome it decides; the digest of a stage (its parameters and those of the
stages before it) names its folder under ``runs_dir``, so that the same parameters always find the
same work.
"""

from __future__ import annotations

import difflib
import json
import math
import os
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import ValidationError

from qvlib import environments, estimators
from qvlib.agents import arms as arm_list
from qvlib.agents.twins import TWINS, Twin
from qvlib.base.addresses import wrong_base_url, wrong_key_variable
from qvlib.base.errors import QvlibError, brief
from qvlib.base.files import hash_of
from qvlib.base.keys import keys_in
from qvlib.base.paths import SOURCE, find, is_project, project_root
from qvlib.base.settings import Settings, setting
from qvlib.base.yaml_text import number_type, read_mapping
from qvlib.models.api_refusals import wrong_refusals
from qvlib.models.fingerprint import fingerprint
from qvlib.models.names import is_remote

STAGES: dict[str, tuple[str, ...]] = {
    # stage: the stages it builds on; episodes/<arm> builds on what the arm needs
    "data": (),
    "agent": ("data",),
    "other_agent": ("data",),
    "trees": ("agent",),
    "pairs": ("trees",),
    "q_model": ("pairs",),
    "control": ("pairs", "q_model"),
    "critics": ("pairs", "q_model"),
    "rft": ("trees",),
    "eto": ("pairs",),
    "rules": ("q_model", "control"),
    "trial": ("q_model",),
    "scored": ("q_model", "episodes/search"),
    "followed": ("q_model", "episodes/sample"),
}
EPISODES, DEV, TRIAL = "episodes/", "dev/", "trial/"
"""What the stages of an arm's episodes on test and on dev tasks, and of a twin's of a cell, begin
with."""
PER_ROUND = ("trees", "pairs", "q_model")
"""The stages that each round of collecting has."""
ON_DEV = ("rules", "trial")
"""The stages that play dev tasks: ablations."""
AFTER_EPISODES = (*ON_DEV, "scored")
"""The stages that come last: ablations, and what the Q model says of pairs of test tasks."""
DEFAULT_ENVIRONMENT = "webshop"
COLDEST = 1e-6
"""The lowest temperature that scores are divided by."""


class RunSettings(Settings):
    """Where and how a run works. Of these only the seed and the precision decide what comes out."""

    name: str = setting(
        "quick",
        "folder of the rendered results, results/<name>",
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$",
        max_length=100,
    )
    runs_dir: str = setting(
        "runs",
        "folder of the working files; stages are found again by their parameters",
        pattern=r"\S",
    )
    results_dir: str = setting("results", "folder of the rendered results", pattern=r"\S")
    seed: int = setting(
        0, "every random draw derives from (seed, task, node, k)", decides="agent", ge=0
    )
    seeds: int = setting(
        1,
        "whole chains, from cloning to episodes: seed, seed + 1, ...; results are pooled",
        ge=1,
        le=1000,
    )
    device: str = setting("cpu", "cpu, cuda or cuda:N", pattern=r"^(cpu|cuda(:\d+)?)$")
    dtype: Literal["auto", "float32", "float64", "bfloat16"] = setting(
        "auto",
        "precision of models; float64 gives equal tables for any batch size and processor; "
        "with bfloat16 the Q model is in float32 (a GPU multiplies it in TF32); auto = float64 for "
        "the small agent, float32 for a named model",
        decides="agent",
    )
    executor: Literal["processes", "ray"] = setting(
        "processes", "where stages do their work: processes of this machine, or Ray"
    )
    processes: int = setting(
        0, "workers at once, each with one thread on a CPU; 0 = one per core (ray: per CPU)", ge=0
    )
    ray_address: str = setting("", "address of a Ray cluster; empty = one on this machine")
    gpus_per_worker: float = setting(
        0.0, "share of a GPU that each Ray worker takes; 0 = none", ge=0
    )
    batch_size: int = setting(64, "trees or episodes that advance together", ge=1)
    bootstrap: int = setting(10000, "bootstrap resamples of a 95 % interval", ge=100, le=10**6)
    wandb_mode: Literal["auto", "offline", "online", "disabled"] = setting(
        "auto", "auto = what WANDB_MODE says, else online if WANDB_API_KEY is set, else offline"
    )
    wandb_project: str = setting("qvlib", "wandb project")
    studies: tuple[str, ...] = setting(
        (), "notebooks from 08 on that the run also plays, by name: 09_published"
    )
    compared_runs: tuple[str, ...] = setting(
        (), "runs of results_dir that 09_published shows beside this one and the paper"
    )


class AgentSettings(Settings):
    """The agent: a small model cloned on the spot, or a model that is named."""

    stage: ClassVar[str | None] = "agent"

    agent: str = setting(
        "small",
        "small = cloned from scratch; or a causal model: smollm2, a folder, a GGUF file, a hub "
        "name, api:MODEL",
    )
    agent_width: int = setting(96, "hidden size of the small agent", ge=16, le=2**16)
    agent_layers: int = setting(2, "layers of the small agent", ge=1, le=1000)
    agent_heads: int = setting(4, "attention heads of the small agent", ge=1, le=2**15)
    vocabulary: int = setting(2048, "tokens of the small agent's byte-level BPE", ge=300, le=10**6)
    demonstrations: int = setting(
        2400, "episodes of the demonstrator (a script that errs) for behaviour cloning", ge=1
    )
    demonstrator_errors: float = setting(
        1.0, "error rate of the demonstrator, relative to its own; 0 = it never errs", ge=0
    )
    clone_epochs: int = setting(1, "epochs of behaviour cloning", ge=1)
    clone_lr: float = setting(3.0e-3, "peak learning rate of behaviour cloning, cosine to 0", gt=0)
    clone_batch: int = setting(
        8, "decisions in a batch of behaviour cloning; of transcripts, episodes", ge=1
    )
    warm_start: bool = setting(
        False, "fine-tune named models on the demonstrations first, for clone_epochs epochs"
    )
    warm_lr: float = setting(2.0e-4, "peak learning rate of a warm start, linear to 0", gt=0)
    warm_batch: int = setting(4, "episodes in a batch of a warm start", ge=1)
    warm_rank: int = setting(
        16, "LoRA rank of a warm start, merged afterwards; 0 = full fine-tuning", ge=0
    )
    prompt_tokens: int = setting(
        2048,
        "longest prompt of a chat (served: three bytes a token); beyond it whole old observations "
        "are left out",
        ge=64,
    )
    instructions: bool = setting(True, "tell a chat model the rules of the environment")
    description_words: int = setting(
        10,
        "most words of what the page shows of an item that a reply naming it quotes; 0 = the bare "
        "action (published)",
        ge=0,
    )
    thoughts: bool = setting(
        False,
        "ask a chat model for a thought before each action; log-probabilities are then those of "
        "the action given its thought",
    )
    examples: int = setting(
        0, "demonstrated episodes shown in a chat before the task (in-context examples)", ge=0
    )
    cache_tokens: int = setting(
        0,
        "tokens of chat prompts whose key-value caches are kept between steps",
        decides=None,
        ge=0,
    )
    trust_remote_code: bool = setting(
        False,
        "run the code that a named model brings (auto_map); it may do all that you may",
        decides=None,  # but where it is set: ``Params.stage_fields``
    )
    pickled_weights: bool = setting(
        False,
        "read weights from pytorch_model.bin where a named model has no safetensors",
        decides=None,
    )


class ServerSettings(Settings):
    """The chat server behind agents ``api:MODEL``."""

    api_base_url: str = setting(
        "https://api.openai.com/v1", "address of the server, OpenAI-compatible", decides="agent"
    )
    api_n: Literal["auto", "each"] = setting(
        "auto",
        "auto = all draws of a state in one request where the server can; each = one by one",
        decides="agent",
    )
    api_extra: dict[str, Any] = setting(
        {}, "further fields of each request's JSON; null leaves a field out", decides="agent"
    )
    api_key_variable: str = setting(
        "OPENAI_API_KEY", "environment variable that holds the key; empty = none is sent"
    )
    api_cache: str = setting(
        "",
        "file of the server's replies, with which a run repeats without it; empty = "
        "replies-MODEL.jsonl in runs_dir",
    )
    api_offline: bool = setting(False, "answer from that file alone")
    api_in_flight: int = setting(16, "requests under way at once", ge=1)
    api_timeout: float = setting(60.0, "seconds a request may be silent", gt=0, le=1e6)
    api_deadline: float = setting(300.0, "seconds until an answer must be whole", gt=0, le=1e6)
    api_longest_answer: int = setting(8_000_000, "bytes of an answer, unpacked", ge=1)
    api_retries: int = setting(6, "further tries of a request that fails", ge=0)
    api_longest_wait: float = setting(
        600.0, "seconds that the server may ask to wait; beyond them the run ends", ge=0
    )
    api_refusals: dict[str, str] = setting(
        {},
        "regular expression of a refusal's words -> what is done: drop FIELD, rename FIELD OTHER, "
        "shorten, empty or end; goes before the table in qvlib/models/api_refusals.py",
    )
    api_price_prompt: float = setting(0.0, "USD per million prompt tokens", ge=0)
    api_price_completion: float = setting(0.0, "USD per million completion tokens", ge=0)


class OtherAgentSettings(Settings):
    """The second agent, reranked by the Q model of the first."""

    stage: ClassVar[str | None] = "other_agent"

    other_agent: str = setting("small", "the second agent: small, or a model as for agent")
    other_width: int = setting(64, "hidden size of the second agent", ge=16, le=2**16)
    other_layers: int = setting(2, "layers of the second agent", ge=1, le=1000)
    other_demonstrations: int = setting(
        1200,
        "demonstrations of the second agent, others than the first's; 0 = no second agent",
        ge=0,
    )


SAMPLED = ("trees", "episodes", "candidates")
SEARCHED = ("trees", "search")
TRIED = ("trial", "candidates")
ON_DEV_TASKS = (*TRIED, "dev")
"""Of a cell of a grid: with its Q model, and with the twins that choose without one."""


class SamplingSettings(Settings):
    """How agents are sampled, everywhere."""

    temperature: float = setting(
        1.0, "sampling temperature (paper: 1)", decides=SAMPLED, ge=COLDEST
    )
    top_p: float = setting(
        0.9, "top-p of nucleus sampling (paper's code: 0.9)", decides=SAMPLED, gt=0, le=1
    )
    max_action_tokens: int = setting(24, "longest action in tokens", decides=SAMPLED, ge=1)
    filter_actions: bool = setting(
        True, "draw again what is refused or has no effect, in every arm", decides=SAMPLED
    )
    listed_actions: bool = setting(
        False,
        "where the environment lists every action, draw from those alone, by the agent's "
        "probability of each, in every arm",
        decides=SAMPLED,
    )


class SearchSettings(Settings):
    """Monte Carlo tree search."""

    stage: ClassVar[str | None] = "trees"

    train_tasks: int = setting(90, "tasks that are searched (paper: 1,000-1,824)", ge=1)
    iterations: int = setting(30, "MCTS iterations per task (paper: 30)", ge=1)
    search_iterations: int = setting(
        30,
        "iterations of the arm search at test time, with the environment",
        decides="episodes/search",
        ge=1,
    )
    rounds: int = setting(
        1,
        "rounds of collecting; from the second on by the agent reranked with the Q model of "
        "the round before",
        ge=1,
        le=50,  # each is named by the one before
    )
    expand_n: int = setting(5, "actions sampled at an expansion (paper: 5)", decides=SEARCHED, ge=1)
    exploration: float = setting(
        math.sqrt(2),
        "exploration constant c of UCT: V + c sqrt(ln N(parent) / N) (paper: sqrt 2)",
        decides=SEARCHED,
        ge=0,
    )
    uct: Literal["mean", "published_code", "novelty"] = setting(
        "mean",
        "mean = UCT as in the paper; published_code divides the mean by the visits again; novelty "
        "adds a bonus for pages seen little, in the tree and in earlier rounds",
        decides=SEARCHED,
    )
    novelty_weight: float = setting(
        1.0,
        "w of the bonus w / sqrt(1 + N) of uct: novelty, N the visits of a page anywhere",
        decides=SEARCHED,
        option=True,
        ge=0,
    )
    reroot_after: int = setting(
        0,
        "iterations after which the search goes on from the best child; 0 = never",
        decides=SEARCHED,
        ge=0,
    )
    discount: float = setting(
        0.95, "discount factor per step; 1 = undiscounted (paper)", decides=SEARCHED, gt=0, le=1
    )
    stop_at_success: bool = setting(
        True, "end a search when a node has reward 1 (paper's code)", decides=SEARCHED
    )
    invalid_value: float = setting(
        -1.0, "value of a refused action (paper's code: -1)", decides=SEARCHED, ge=-1, le=0
    )
    expand_at: Literal["second_visit", "first_visit"] = setting(
        "second_visit",
        "the visit of a leaf at which it is expanded (paper's code: the first)",
        decides=SEARCHED,
    )
    unvisited_value: Literal["zero", "reward"] = setting(
        "zero",
        "value of a node before its first visit: zero, or the reward it ended with and "
        "invalid_value (paper's code: reward in WebShop, zero in HotPotQA)",
        decides=SEARCHED,
    )
    ended_leaves: Literal["again", "once", "published_code"] = setting(
        "again",
        "ends are selected again, or once; published_code = a success again, no other, and a node "
        "with ends alone below is deleted",
        decides=SEARCHED,
    )
    refused_actions: Literal["end", "go_on"] = setting(
        "end",
        "refused actions end a branch of the tree, or go_on as in an episode (paper's code)",
        decides=SEARCHED,
    )
    wrong_end_value: float = setting(
        0.0,
        "value of an end with reward 0, in its own node alone (paper's code: -1 in HotPotQA)",
        decides=SEARCHED,
        ge=-1,
        le=0,
    )
    final_backup: bool = setting(
        False,
        "back up each end of value 0 once more as the search ends without success (paper's code)",
        decides=SEARCHED,
    )


class CollectingSettings(Settings):
    """Options while collecting: which tasks are searched when, and who says what an end is worth.

    At their defaults they decide nothing.
    """

    stage: ClassVar[str | None] = "trees"

    disagreement_weight: float = setting(
        0.0,
        "after the first round, weight of the critics' disagreement beside Q in what is searched "
        "with (the lambda of SUNRISE); 0 = no critics",
        decides="guide",
        option=True,
        ge=0,
    )
    critics: int = setting(
        3,
        "Q models whose disagreement counts, each fitted to a half of the tasks drawn by coins",
        decides="critics",
        ge=2,
        le=100,
    )
    curriculum: Literal["none", "easy_first", "hard_first"] = setting(
        "none",
        "order in which rounds search tasks, by what an episode of the demonstrator earns, in "
        "later rounds one of the guided agent; none = as they come",
        option=True,
    )
    curriculum_pool: int = setting(
        0,
        "training tasks that a curriculum chooses among in all rounds; 0 = four times train_tasks",
        option=True,
        ge=0,
    )
    evaluator: Literal["environment", "model"] = setting(
        "environment",
        "who gives the reward of an end while collecting; model = a chat model's verdict, for "
        "worlds that give none",
        option=True,
    )
    evaluator_model: str = setting(
        "", "the chat model of evaluator: model, named as for agent; empty = the agent", option=True
    )
    verdict_tokens: int = setting(16, "longest verdict in tokens", option=True, ge=1)


class PairSettings(Settings):
    """Preference pairs of siblings."""

    stage: ClassVar[str | None] = "pairs"

    pairs: Literal["best_path", "best_value_path", "all_nodes", "all_siblings"] = setting(
        "all_nodes",
        "best_path = best against worst sibling along the path to the highest reward (paper); "
        "best_value_path = along the highest values; all_nodes = at every node; all_siblings = "
        "every two siblings",
    )
    min_margin: float = setting(
        0.05, "least difference of the two values", decides=("pairs", "siblings"), ge=0
    )
    min_visits: int = setting(
        1,
        "least visits of both siblings; 0 = along best_path unvisited ones too (paper's code)",
        decides=("pairs", "siblings"),
        ge=0,
    )
    heldout_share: float = setting(
        0.1, "share of the tasks whose pairs are held out of training", ge=0, lt=1
    )


class QModelSettings(Settings):
    """Which estimator of a step's value is fitted, to what model, and its control."""

    stage: ClassVar[str | None] = "q_model"

    estimator: str = setting(
        "step_dpo", "estimator of a step's value, by name or module:ESTIMATOR of your own"
    )
    q_base: str = setting(
        "", "the model that becomes the Q model, named as for agent; empty = the agent's own"
    )
    control_shuffles: int = setting(
        8,
        "controls, each trained on the same pairs with winners drawn by coins of its own: the "
        "null of a gain",
        decides="control",
        ge=1,
        le=1000,
    )


class EvaluationSettings(Settings):
    """The test tasks, and how scores choose."""

    stage: ClassVar[str | None] = "episodes"

    test_tasks: int = setting(200, "held-out test tasks", ge=1)
    test_skip: int = setting(
        0,
        "test tasks that earlier choices were judged on: left out, with all others of their groups",
        ge=0,
    )
    primary: str = setting(
        "q_n5 minus foreign_q_n5",
        "the comparison that the run is for, ARM minus ARM, named before it is played",
        decides=None,
        pattern=r"^[\w.-]+ minus [\w.-]+$",
    )
    rerank_temperature: float = setting(
        0.0,
        "0 = argmax of Q; else a draw from softmax(Q / T) over the samples, repeats counted",
        decides=("rerank", "trial"),
        ge=0,
    )
    prior_weight: float = setting(
        0.0,
        "weight of the agent's own log-probability beside Q",
        decides=("rerank", "trial"),
        ge=0,
    )
    extra_arms: tuple[str, ...] = setting(
        (), "arms of your own beside the list's, each module:ARM", decides=None
    )


class AblationSettings(Settings):
    """Scoring rules, grids and the comparison of estimators, chosen on dev tasks."""

    rule_tasks: int = setting(
        0,
        "dev tasks on which each scoring rule is tried beside its own control; 0 = none",
        decides="rules",
        ge=0,
    )
    rule_n: int = setting(10, "candidates of the scoring rules", decides="rules", ge=1)
    grid: str = setting("", "file of the grid of ablations, params/grids/*.yml; empty = none")
    trial_chains: int = setting(
        1, "chains of a cell of the grid: seed, seed + 1, ...; results are pooled", ge=1, le=1000
    )
    trial_twins: bool = setting(
        False,
        "a cell also plays, of the same candidates, the likeliest, the oracle's, what its Q model "
        "prefers under another task's instruction, and where it has the run's control, one of it",
    )
    trial_tasks: int = setting(200, "dev tasks of a cell of the grid", decides=ON_DEV_TASKS, ge=1)
    trial_n: int = setting(10, "candidates of a cell of the grid", decides=TRIED, ge=1)
    trial_temperature: float = setting(
        0.0,
        "sampling temperature of a cell's candidates; 0 = that of the agent",
        decides=TRIED,
        ge=0,
    )
    compare: str = setting(
        "",
        "file of the comparison of estimators, params/grids/estimators-*.yml; empty = none",
    )
    compare_chains: Literal["first", "all"] = setting(
        "first",
        "chains whose trials choose an estimator's or a baseline's settings on trial_tasks dev "
        "tasks; on test tasks all are played",
    )
    baselines: str = setting(
        "",
        "file of arms that are tuned on dev tasks and played at one budget, "
        "params/grids/baselines*.yml; empty = none",
    )


FIXED: dict[str, type[Settings]] = {
    "run": RunSettings,
    "world": Settings,  # the chosen world's
    "agent": AgentSettings,
    "server": ServerSettings,
    "other_agent": OtherAgentSettings,
    "sampling": SamplingSettings,
    "search": SearchSettings,
    "collecting": CollectingSettings,
    "pairs": PairSettings,
    "q_model": QModelSettings,
    "estimator": Settings,  # the chosen estimator's
    "evaluation": EvaluationSettings,
    "ablations": AblationSettings,
}


@dataclass(frozen=True)
class Params:
    """All parameters of a run, by section: ``params.search.iterations``.

    sections: (name, settings): the fixed ones, then one for each arm that has settings, by its
    name. given: what was typed, flat; the rest are the defaults of what was chosen.
    """

    sections: tuple[tuple[str, Settings], ...]
    given: Mapping[str, Any] = field(compare=False, repr=False)

    def __getattr__(self, name: str) -> Settings:
        for section, settings in self.__dict__.get("sections", ()):
            if section == name:
                return settings
        raise AttributeError(f"Params has no section {name!r}")

    def __reduce__(self) -> tuple[Any, ...]:
        # A section's class may come from the user's project: the receiver finds it by the name.
        return make, (dict(self.given),)

    def __hash__(self) -> int:
        return hash(json.dumps(self.flat(), sort_keys=True))

    def flat(self) -> dict[str, Any]:
        """Every parameter by its name, as it is typed."""
        return {
            name: value
            for _, settings in self.sections
            for name, value in settings.model_dump(mode="json").items()
        }

    def choices(self) -> dict[str, Any]:
        """The parameters that say which others there are."""
        return {name: value for name, value in self.flat().items() if name in _CHOOSING}

    def defaults(self) -> Params:
        """The defaults of the same world, estimator and arms."""
        return make({name: self.given[name] for name in _CHOOSING if name in self.given})

    def unusual(self) -> dict[str, Any]:
        """The parameters that differ from the defaults: what a reader must know of a run."""
        usual = self.defaults().flat() | make({}).choices()
        return {name: value for name, value in self.flat().items() if value != usual[name]}

    def replace(self, **changes: Any) -> Params:
        """The same with some parameters changed, by their flat names."""
        return self.changed(changes)

    def changed(self, changes: Mapping[str, Any], source: str = "parameters") -> Params:
        """``replace``; errors name the source.

        With another world or estimator what was given for the present one alone is dropped.
        """
        known = _where(_classes({**self.given, **changes}, source))
        kept = {name: value for name, value in self.given.items() if name in known}
        return make({**kept, **changes}, source)

    def arms(self) -> tuple[arm_list.Arm, ...]:
        """The arms of the evaluation, in the order of the list, as the parameters have them."""
        return tuple(arm for arm in _arms(self.given) if arm.active(self))

    def arm(self, name: str) -> arm_list.Arm:
        """The arm of that name."""
        return next(arm for arm in _arms(self.given) if arm.name == name)

    def twins(self) -> tuple[Twin, ...]:
        """What else chooses in a cell of the grid, if the run asks for it."""
        asked = self.ablations.trial_twins
        return tuple(twin for twin in TWINS if asked and twin.active(self))

    def stage_fields(self, stage: str) -> dict[str, Any]:
        """The parameters that decide a stage itself (not the stages before it)."""
        kinds = (stage,)
        if stage.startswith(EPISODES):
            arm = self.arm(stage.removeprefix(EPISODES))
            kinds = ("episodes", stage, *arm.decided_by)
        if stage.startswith(DEV):
            arm = self.arm(stage.removeprefix(DEV))
            kinds = ("dev", f"{EPISODES}{arm.name}", *arm.decided_by)
        if stage.startswith(TRIAL):
            kinds = _twin(stage).decided_by
        fields = {
            name: value
            for _, settings in self.sections
            for kind in kinds
            for name, value in settings.deciding(kind).items()
        }
        if stage.startswith((EPISODES, DEV)) and arm.origin:
            # Another module's arm of the same name is another arm, and so is one that was edited.
            fields |= {"arm": arm.origin, "arm sha256": arm.sha256}
        if stage in ("scored", "followed"):  # by what an estimator's settings change in its scores
            fields |= self.estimator.deciding("rerank")
        if stage == "q_model":
            sources = estimators.estimator_of(self.q_model.estimator).sources
            fields |= {f"{file} sha256": sha256 for file, sha256 in sources.items()}
        return fields | self._models(fields)

    def _models(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """What the models that a stage's fields name are, beyond their names."""
        files = {
            f"{key}_files": fingerprint(fields[key])
            for key in ("agent", "other_agent", "q_base", "evaluator_model")
            if fields.get(key)
        }
        known = {key: value for key, value in files.items() if value}
        own_code = self.agent.trust_remote_code and files
        return known | ({"trust_remote_code": True} if own_code else {})

    def upstream(self, stage: str) -> tuple[str, ...]:
        """The stages before ``stage``, nearest last, without repeats."""
        if stage.startswith(EPISODES):
            before = self.arm(stage.removeprefix(EPISODES)).needs
        elif stage.startswith(DEV):
            before = self.arm(stage.removeprefix(DEV)).needs
        elif stage.startswith(TRIAL):
            before = _twin(stage).needs
        else:
            before = STAGES[stage]
        order: dict[str, None] = {}
        for name in before:
            order.update(dict.fromkeys((*self.upstream(name), name)))
        return tuple(order)

    def stages(self) -> tuple[str, ...]:
        """All stages of a run with these parameters, in the order they are made."""
        optional = {
            "other_agent": self.other_agent.other_demonstrations > 0,
            "critics": False,  # they guide a later round alone
            "followed": False,  # of the estimators of a comparison alone
            "rft": any("rft" in arm.needs for arm in self.arms()),
            "eto": any("eto" in arm.needs for arm in self.arms()),
            "rules": self.ablations.rule_tasks > 0,
            "trial": bool(self.ablations.grid),
        }
        played = [f"{EPISODES}{arm.name}" for arm in self.arms()]
        fixed = [stage for stage in STAGES if optional.get(stage, True)]
        last = [stage for stage in fixed if stage in AFTER_EPISODES]
        if "trial" in last:
            last += [f"{TRIAL}{twin.name}" for twin in self.twins()]
        return (*(stage for stage in fixed if stage not in last), *played, *last)

    def deciding(self, stage: str) -> dict[str, dict[str, Any]]:
        """All parameters that decide a stage's outcome, by the stage they belong to."""
        decides = {s: self.stage_fields(s) for s in (*self.upstream(stage), stage)}
        if (
            "other_agent" in decides
        ):  # the agent's recipe, with a size and demonstrations of its own
            decides.setdefault("agent", self.stage_fields("agent"))
        if "trees" in decides and self.search.rounds > 1:
            stages = ("q_model", *self._critics())
            guide = {stage: self.round_before().digest(stage) for stage in stages}
            decides["round before"] = guide | self.stage_fields("guide")
        return decides

    def _critics(self) -> tuple[str, ...]:
        """The stage of the critics of a round that guides another, where there are any."""
        return ("critics",) * (self.collecting.disagreement_weight > 0)

    @property
    def pool(self) -> int:
        """How many training tasks a curriculum chooses among; 0 where there is none."""
        how = self.collecting
        if how.curriculum == "none":
            return 0
        return how.curriculum_pool or 4 * self.search.train_tasks

    @property
    def judge(self) -> str:
        """The model whose verdicts are the rewards of collecting; "" where they are the world's."""
        how = self.collecting
        return (how.evaluator_model or self.agent.agent) if how.evaluator == "model" else ""

    @property
    def dtype(self) -> str:
        """The precision of models: ``auto`` resolved."""
        if self.run.dtype != "auto":
            return self.run.dtype
        return "float64" if self.agent.agent == "small" and not self.q_model.q_base else "float32"

    def each_seed(self) -> list[Params]:
        """The parameters of each chain of the run."""
        seeds = range(self.run.seed, self.run.seed + self.run.seeds)
        return [self.replace(seed=seed, seeds=1) for seed in seeds]

    def round_before(self) -> Params:
        """The parameters whose Q model guides this round of collecting."""
        return self.replace(rounds=self.search.rounds - 1)

    def each_round(self) -> list[Params]:
        """The parameters of each round of collecting, the first round first."""
        earlier = self.round_before().each_round() if self.search.rounds > 1 else []
        return [*earlier, self]

    def every_stage(self) -> list[tuple[Params, str]]:
        """The stages of this chain with their parameters, those of earlier rounds first."""
        rounds, stages = self.each_round()[:-1], (*PER_ROUND, *self._critics())
        before = [(early, stage) for early in rounds for stage in stages]
        if "rft" in self.stages():
            before += [(early, "rft") for early in self.each_rft_round()[:-1]]
        return [*before, *((self, stage) for stage in self.stages())]

    def each_rft_round(self) -> list[Params]:
        """The parameters of each round of RFT, the first round first."""
        last = self.rft.rft_rounds
        return [*(self.replace(rft_rounds=number) for number in range(1, last)), self]

    def digest(self, stage: str) -> str:
        """Eight hex digits of all that decides a stage's outcome."""
        return hash_of(self.deciding(stage), 4)

    def fingerprint(self) -> str:
        """Eight hex digits of all that decides the run's outcome: of every stage."""
        return hash_of({stage: self.digest(stage) for stage in self.stages()}, 4)


def _twin(stage: str) -> Twin:
    return next(twin for twin in TWINS if twin.name == stage.removeprefix(TRIAL))


_MAY_HOLD_KEYS = ("api_key_variable", "api_base_url", "api_extra")
"""Their values are in no message."""
_OF_REQUESTS = {  # fields of a request -> the parameter that sets them
    "model": "agent",
    "messages": "",
    "n": "api_n",
    "stream": "",
    "temperature": "temperature",
    "top_p": "top_p",
}
_CHOOSING = ("environment", "estimator", "extra_arms")


def make(values: Mapping[str, Any], source: str = "parameters") -> Params:
    """Validate a flat mapping; what it leaves out has the default of the world, estimator or arm.

    Raises:
        QvlibError: an unknown key (with the nearest real one), one of a world or an estimator that
            is not chosen, or an ill-typed value.
    """
    values = {key: _plain(value) for key, value in values.items()}
    classes = _classes(values, source)
    where = _where(classes)
    for key in values:
        if key not in where:
            raise QvlibError(f"{source}: {_unknown(key, where, values)}")
    typed: dict[str, dict[str, Any]] = {section: {} for section in classes}
    typed["world"]["environment"] = values.get("environment", DEFAULT_ENVIRONMENT)
    for key, value in values.items():
        typed[where[key]][key] = _as_written(classes[where[key]], key, value)
    sections = [(name, typed_settings(cls, typed[name], source)) for name, cls in classes.items()]
    params = Params(tuple(sections), values)
    for key, wrong in _inconsistent(params):
        raise QvlibError(f"{source}: parameter {key!r}: {wrong}")
    return params


def typed_settings(cls: type[Settings], values: Mapping[str, Any], source: str) -> Settings:
    """A section with these values.

    Raises:
        QvlibError: it has no such setting, or an ill-typed value.
    """
    try:
        return cls(**values)
    except ValidationError as error:
        raise QvlibError(f"{source}: {_ill_typed(error, cls)}") from None


def type_of(key: str) -> Any:
    """The type of a parameter, whichever world, estimator or arm has it; None if none has."""
    worlds = (environments.world_of(name).settings for name in environments.WORLDS)
    fitted = (estimators.estimator_of(name).settings for name in estimators.ESTIMATORS)
    arms = (arm.settings for arm in arm_list.ARMS if arm.settings is not None)
    for cls in (*FIXED.values(), *worlds, *fitted, *arms):
        if key in cls.names():
            return cls.model_fields[key].annotation
    return None


def _classes(values: Mapping[str, Any], source: str) -> dict[str, type[Settings]]:
    """Section -> its class, for the world, the estimator and the arms that the values choose."""
    chosen = {}
    for key, named in (
        ("environment", environments.world_of),
        ("estimator", estimators.estimator_of),
    ):
        name = values.get(key, _default(key))
        if not isinstance(name, str):
            raise QvlibError(f"{source}: parameter {key!r}: a name, got {brief(name)}")
        try:
            chosen[key] = named(name).settings
        except QvlibError as error:
            raise QvlibError(f"{source}: {error}") from None
    classes = {**FIXED, "world": chosen["environment"], "estimator": chosen["estimator"]}
    own = values.get("extra_arms", ())
    if not isinstance(own, list | tuple) or not all(isinstance(name, str) for name in own):
        raise QvlibError(
            f"{source}: parameter 'extra_arms': a list of names, got {brief(own)}; write "
            "[module:ARM]"
        )
    try:
        arms = _arms(values)
    except QvlibError as error:
        raise QvlibError(f"{source}: {error}") from None
    return classes | {arm.name: arm.settings for arm in arms if arm.settings is not None}


def _arms(values: Mapping[str, Any]) -> tuple[arm_list.Arm, ...]:
    return arm_list.arms_of(tuple(values.get("extra_arms", ())))


def _plain(value: Any) -> Any:
    """Paths as text, numbers and arrays of libraries as Python's own, as a file would have them."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Decimal):
        return float(value)
    return value.tolist() if hasattr(value, "tolist") else value


def _where(classes: Mapping[str, type[Settings]]) -> dict[str, str]:
    """Parameter -> section.

    Raises:
        QvlibError: two sections have one of that name, as an arm of one's own with a ``seed``.
    """
    where: dict[str, str] = {}
    for section, cls in classes.items():
        for name in cls.names():
            if name in where:
                raise QvlibError(
                    f"{where[name]} and {section} both have a setting {name!r}; rename that of "
                    "your own"
                )
            where[name] = section
    return where


def _default(key: str) -> Any:
    if key == "environment":
        return DEFAULT_ENVIRONMENT
    section = next(s for s in FIXED.values() if key in s.names())
    return section.model_fields[key].default


def _as_written(cls: type[Settings], key: str, value: Any) -> Any:
    """YAML cannot say that 2 is meant as 2.0 or a list as a tuple; all else stays refused."""
    annotation = cls.model_fields[key].annotation
    if annotation is float and type(value) is int:
        return float(value)
    if isinstance(value, list) and getattr(annotation, "__origin__", None) is tuple:
        return tuple(value)
    return value


def _unknown(key: Any, where: Mapping[str, str], values: Mapping[str, Any]) -> str:
    owners = {
        "environment": {name: environments.world_of(name) for name in environments.WORLDS},
        "estimator": {name: estimators.estimator_of(name) for name in estimators.ESTIMATORS},
    }
    for choice, known in owners.items():
        of = [name for name, owner in known.items() if key in owner.settings.names()]
        if of:
            return (
                f"parameter {key!r} belongs to {choice} {' and '.join(of)}, and {choice} is "
                f"{values.get(choice, _default(choice))}; leave it out"
            )
    near = difflib.get_close_matches(str(key), where, n=1)
    hint = f"did you mean {near[0]!r}?" if near else "`qvlib params` lists the real ones"
    return f"unknown parameter {brief(key)}; {hint}"


def _ill_typed(error: ValidationError, cls: type[Settings]) -> str:
    first = error.errors()[0]
    message, got = first["msg"].removeprefix("Value error, "), first.get("input")
    key = str(first["loc"][0]) if first["loc"] else ""
    if key not in cls.names():  # not of one setting, or of one that is not there
        return f"{key or cls.__name__}: {message}; `qvlib params` lists the settings"
    known = cls.model_fields[key]
    meaning = textwrap.shorten(known.description or "", 80, placeholder=" ...")
    ending = _remedy(known.annotation, got) or f"; it means: {meaning}"
    told = "" if key in _MAY_HOLD_KEYS else f", got {brief(got)}"
    return f"parameter {key!r}: {message}{told}{ending}"


def _remedy(annotation: Any, got: Any) -> str:
    """How to write what was meant, where that is plain."""
    if got is None:
        return " (leave the line out for the default)"
    if annotation is str and isinstance(got, bool | int | float | date):
        return " (put it in quotes)"
    if annotation is bool:
        return " (write true or false, without quotes)"
    if annotation is int and isinstance(got, float) and got.is_integer():
        return f" (write {got:.0f})"
    if annotation in (int, float) and isinstance(got, str):
        return _number_meant(annotation, got)
    return ""


def _number_meant(annotation: Any, text: str) -> str:
    """How to write a number that arrived as text: in quotes, or in a form that YAML does not know.

    YAML reads ``1e-6`` and ``1e3`` as text, since a float has a dot, and ``08`` too.
    """
    try:
        number = float(re.sub(r",(?=\d{3}\b)", "", text))  # also 1,000
    except ValueError:
        return ""
    if not math.isfinite(number) or (annotation is int and not number.is_integer()):
        return ""
    if issubclass(number_type(text) or str, annotation if annotation is int else int | float):
        return " (drop the quotes)"
    if annotation is int:
        written = f"{number:.0f}"
    else:
        written = f"{number:.1e}" if float(f"{number:.1e}") == number else repr(number)
    return f" (write {written}: YAML reads {text} as text)"


def _inconsistent(params: Params) -> Iterator[tuple[str, str]]:
    """Parameters that do not fit each other, with the remedy; values of keys are not told."""
    server, agent, other = params.server, params.agent, params.other_agent
    checks = (
        ("api_key_variable", wrong_key_variable),
        ("api_base_url", wrong_base_url),
        ("api_refusals", wrong_refusals),
    )
    for key, check in checks:
        if wrong := check(getattr(server, key)):
            yield key, wrong
    for name in _OF_REQUESTS.keys() & server.api_extra.keys():
        # Null leaves out what a server does not take; another value is one that no table tells.
        left_out = server.api_extra[name] is None and name not in ("model", "messages")
        if not left_out and not (name == "stream" and server.api_extra[name] is False):
            by = _OF_REQUESTS[name]
            by = f"the parameter {by} sets" if by else "qvlib sets"
            yield "api_extra", f"the field {name} is one that {by}; leave it out of api_extra"
    for held in keys_in(server.api_extra):
        yield (
            "api_extra",
            f"the field {held:.60} holds a key, which would be written down; leave it out and put "
            "the key into the environment",
        )
    second = other.other_demonstrations > 0
    widths = (
        ("agent_width", agent.agent_width, agent.agent == "small"),
        ("other_width", other.other_width, other.other_agent == "small" and second),
    )
    for key, width, used in widths:
        if used and width % (2 * agent.agent_heads):
            yield (
                key,
                (
                    f"{width} is no multiple of twice agent_heads = {agent.agent_heads}, since "
                    "each head is of an even size; change one of them"
                ),
            )
    for key, value in (
        ("rerank_temperature", params.evaluation.rerank_temperature),
        ("trial_temperature", params.ablations.trial_temperature),
    ):
        if 0 < value < COLDEST:
            yield key, f"{value:g} is too low to divide by; write 0, or {COLDEST:g} and more"
    known = {arm.name for arm in _arms(params.given)}
    for name in params.evaluation.primary.split(" minus "):
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = (
                f"did you mean {near[0]!r}?" if near else f"give one of {', '.join(sorted(known))}"
            )
            yield "primary", f"there is no arm {name!r}; {hint}"
    minus = params.evaluation.primary.rpartition(" ")[2]
    if any(arm.name == minus and arm.variants for arm in _arms(params.given)):
        yield "primary", f"{minus} has several shuffles: what is minus them stands under 'null'"
    for arm in params.arms():
        if wrong := arm.wrong(params):
            yield (arm.settings.names()[0] if arm.settings else "extra_arms"), wrong
    if params.judge == "small":
        yield (
            "evaluator",
            (
                "the small agent is no chat model and can judge nothing; name one in "
                "evaluator_model, such as api:MODEL or smollm2, or leave evaluator out"
            ),
        )
    how, searched = params.collecting, params.search.rounds * params.search.train_tasks
    if how.curriculum != "none" and params.pool < searched:
        yield (
            "curriculum_pool",
            (
                f"{params.pool} tasks are fewer than rounds * train_tasks = {searched}; raise "
                "curriculum_pool or lower rounds"
            ),
        )
    base = params.q_model.q_base
    if base == "small" or is_remote(base):
        yield (
            "q_base",
            (
                f"{base} cannot be tuned to be the Q model; leave it empty for the agent's own "
                "model, or name a model that lies here or on the hub"
            ),
        )
    name = params.q_model.estimator
    if estimators.estimator_of(name).asks and agent.agent == "small" and not base:
        yield (
            "estimator",
            (
                f"{name} asks a model in words, and the small agent knows actions alone; set "
                "q_base to a chat model, such as smollm2, or take another estimator"
            ),
        )
    served = [agent.agent, *([other.other_agent] if second else [])]
    if params.evaluation.prior_weight and any(map(is_remote, served)):
        yield (
            "prior_weight",
            ("an agent behind a server tells no log-probabilities to weigh; set it to 0"),
        )


def load(path: str | Path, **overrides: Any) -> Params:
    """Read a YAML parameter file; ``overrides`` come instead of what it says.

    A relative path is tried from the current folder, then from the project. Where they choose
    another world or estimator, what the file says of its own alone is dropped.

    Raises:
        QvlibError: no such file, not a flat mapping, or what ``make`` refuses.
    """
    here = is_project(project_root())
    examples = "params/" if here else f"params/ of the project, which is not here: {SOURCE}"
    form = "a flat list of `key: value` lines"
    values = read_mapping(find(path), str(path), "parameter file", form, examples)
    params = make(values, str(path))
    return (
        params.changed(overrides, f"{path} with -p {' '.join(overrides)}") if overrides else params
    )
