"""The parameters of a run: one flat, validated list that a YAML file, papermill and a notebook cell all speak.

The defaults are those of ``params/quick.yml``. Each parameter names the stage whose outcome it
decides; the digest of a stage (its parameters and those of the stages before it) names its folder
under ``runs_dir``, so that the same parameters always find the same work again.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from qvlib.base.addresses import wrong_base_url, wrong_key_variable
from qvlib.base.errors import QvlibError
from qvlib.models.names import is_remote

STAGES: dict[str, tuple[str, ...]] = {
    # stage: the stages it builds on
    "data": (),
    "agent": ("data",),
    "other_agent": ("data",),
    "trees": ("agent",),
    "pairs": ("trees",),
    "q_model": ("pairs",),
    "control": ("pairs", "q_model"),
    "rft": ("trees",),
    "episodes": ("q_model", "control", "other_agent"),  # and rft, where it is set
    "rules": ("q_model", "control"),
    "trial": ("q_model",),
}


def _in(
    stage: str | tuple[str, ...] | None,
    default: Any,
    meaning: str,
    *,
    worlds: tuple[str, ...] = (),
    later: bool = False,
    **limits: Any,
) -> Any:
    """``worlds``: the only environments whose outcomes the parameter decides; () = any.

    later: it came when work was on disk that was made as by its default, which so keeps its digest.
    """
    stages = (stage,) if isinstance(stage, str) else stage or ()
    extra = {
        "stage": stages[0] if stages else None,
        "stages": stages,
        "worlds": worlds,
        "later": later,
    }
    return Field(default, description=meaning, json_schema_extra=extra, **limits)


_ImportPath = Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]


class Params(BaseModel):
    """All parameters, with their meanings. ``qvlib params FILE`` prints them."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=())

    # The run
    name: str = _in(
        None,
        "quick",
        "folder of the rendered results, results/<name>",
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$",
    )
    runs_dir: str = _in(
        None, "runs", "folder of the working files; stages are found again by their parameters"
    )
    results_dir: str = _in(None, "results", "folder of the rendered results")
    seed: int = _in("agent", 0, "every random draw derives from (seed, task, node, k)", ge=0)
    seeds: int = _in(
        None,
        1,
        "whole chains, from cloning to episodes: seed, seed + 1, ...; their results are pooled",
        ge=1,
    )
    device: str = _in(None, "cpu", "cpu, cuda or cuda:N", pattern=r"^(cpu|cuda(:\d+)?)$")
    dtype: Literal["float32", "float64", "bfloat16"] = _in(
        "agent",
        "float32",
        "precision of models; float64 makes tables equal across batch sizes and processors; with bfloat16 the Q "
        "model is in float32",
    )
    processes: int = _in(
        None, 0, "processes on the CPU, each with one thread; 0 = one per core", ge=0
    )
    batch_size: int = _in(None, 64, "trees or episodes that advance together", ge=1)
    wandb_mode: Literal["auto", "offline", "online", "disabled"] = _in(
        None, "auto", "auto = online if WANDB_API_KEY is set, else offline"
    )
    wandb_project: str = _in(None, "qvlib", "wandb project")

    # The world
    environment: Literal["webshop", "hotpotqa", "textworld", "scienceworld"] | _ImportPath = _in(
        "data", "webshop", "the environment by name, or module:factory of your own"
    )
    data_dir: str = _in(
        "data",
        "",
        "folder with the official data files; empty = the embedded catalogue or encyclopaedia, or generated games",
    )
    catalogue_products: int = _in(
        "data",
        2400,
        "products of the embedded catalogue, or articles of the embedded encyclopaedia",
        ge=200,
    )
    catalogue_seed: int = _in(
        "data", 0, "seed of the embedded catalogue or encyclopaedia, or of generated games", ge=0
    )
    goals: Literal["synthetic", "human", "all"] = _in("data", "synthetic", "which goals make tasks")
    games: Literal["cooking", "treasure_hunter", "coin_collector"] = _in(
        "data", "cooking", "what TextWorld's generated games are about", worlds=("textworld",)
    )
    game_count: int = _in(
        "data",
        120,
        "TextWorld's generated games, 1 to 3 s each, or ScienceWorld's variations",
        worlds=("textworld", "scienceworld"),
        ge=3,
    )
    title_nouns: str = _in(
        "data", "auto", "auto (table beside the data, else spacy), spacy, or a table's path"
    )
    repair_rules: bool = _in("data", False, "repair the original's bugs that change a reward")
    max_steps: int = _in(
        "data", 10, "actions after which an episode is cut off (paper: 10, HotPotQA 7)", ge=1
    )
    dev_share: float = _in(
        "data",
        0.1,
        "share of the products, groups of questions or games that are dev",
        gt=0,
        lt=0.5,
    )
    test_share: float = _in(
        "data",
        0.3,
        "share of the products, groups of questions or games that are test",
        gt=0,
        lt=0.8,
    )

    # The agent
    agent: str = _in(
        "agent",
        "small",
        "small = cloned from scratch; or a causal model: smollm2, a folder, a GGUF file, a hub name, api:MODEL",
    )
    agent_width: int = _in("agent", 128, "hidden size of the small agent", ge=16)
    agent_layers: int = _in("agent", 2, "layers of the small agent", ge=1)
    agent_heads: int = _in("agent", 4, "attention heads of the small agent", ge=1)
    vocabulary: int = _in("agent", 2048, "tokens of the small agent's byte-level BPE", ge=300)
    demonstrations: int = _in(
        "agent",
        3000,
        "episodes of the scripted agent that errs, which the agent is cloned from",
        ge=1,
    )
    demonstrator_errors: float = _in(
        "agent",
        1.0,
        "how often the scripted agent errs, relative to its habits; 0 = never",
        ge=0,
        later=True,
    )
    clone_epochs: int = _in("agent", 1, "passes over the demonstrations", ge=1)
    clone_lr: float = _in("agent", 3.0e-3, "peak learning rate of cloning, cosine to 0", gt=0)
    clone_batch: int = _in(
        "agent", 8, "decisions a batch of cloning; where prompts are transcripts, episodes", ge=1
    )
    api_base_url: str = _in(
        "agent", "https://api.openai.com/v1", "chat server of agents api:MODEL, OpenAI-compatible"
    )
    api_n: Literal["auto", "each"] = _in(
        "agent",
        "auto",
        "auto = all draws of a state in one request where the server can; each = one by one",
    )
    api_key_variable: str = _in(
        None,
        "OPENAI_API_KEY",
        "environment variable that holds the server's key; empty = none is sent",
    )
    api_cache: str = _in(
        None,
        "",
        "file of the server's replies, with which a run repeats without it; empty = replies-MODEL.jsonl in runs_dir",
    )
    api_offline: bool = _in(None, False, "answer from that file alone")
    api_in_flight: int = _in(None, 16, "requests under way at once", ge=1)
    api_timeout: float = _in(None, 60.0, "seconds a request may be silent", gt=0)
    api_retries: int = _in(None, 6, "further tries of a request that fails", ge=0)
    api_price_prompt: float = _in(None, 0.0, "USD per million prompt tokens", ge=0)
    api_price_completion: float = _in(None, 0.0, "USD per million completion tokens", ge=0)
    warm_start: bool = _in(
        "agent",
        False,
        "fine-tune models that are named on the demonstrations first, clone_epochs times",
    )
    warm_lr: float = _in("agent", 2.0e-4, "peak learning rate of a warm start, linear to 0", gt=0)
    warm_batch: int = _in("agent", 4, "episodes a batch of a warm start", ge=1)
    warm_rank: int = _in(
        "agent",
        16,
        "rank of the LoRA of a warm start, merged afterwards; 0 = full fine-tuning",
        ge=0,
    )
    prompt_tokens: int = _in(
        "agent",
        2048,
        "longest prompt of a chat; whole old observations are left out beyond it",
        ge=64,
    )
    instructions: bool = _in(
        "agent",
        True,
        "tell a chat model the rules of the environment; a fine-tuned one can do without",
        later=True,
    )
    thoughts: bool = _in("agent", False, "ask a chat model for a thought before each action")
    examples: int = _in("agent", 0, "demonstrated episodes shown in a chat before the task", ge=0)
    cache_tokens: int = _in(
        None,
        0,
        "tokens of chat prompts whose key-value caches are kept for the steps that follow",
        ge=0,
    )
    other_agent: str = _in(
        "other_agent", "small", "the second agent: small, or a causal model as for agent"
    )
    other_width: int = _in("other_agent", 96, "hidden size of the second agent", ge=16)
    other_layers: int = _in("other_agent", 2, "layers of the second agent", ge=1)
    other_demonstrations: int = _in(
        "other_agent", 1500, "demonstrations of the second agent, others than the first's", ge=0
    )

    # Its sampling, everywhere
    temperature: float = _in("trees", 1.0, "sampling temperature (paper: 1)", gt=0)
    top_p: float = _in("trees", 0.9, "nucleus of sampling (paper's code: 0.9)", gt=0, le=1)
    max_action_tokens: int = _in("trees", 24, "longest action in tokens", ge=1)
    filter_actions: bool = _in(
        "trees", True, "drop refused and no-effect actions before they are used, in every arm"
    )

    # Search
    train_tasks: int = _in("trees", 120, "tasks that are searched (paper: 1,000-1,824)", ge=1)
    iterations: int = _in("trees", 30, "MCTS iterations a task (paper: 30)", ge=1)
    expand_n: int = _in("trees", 5, "actions sampled at an expansion (paper: 5)", ge=1)
    exploration: float = _in(
        "trees", math.sqrt(2), "c of UCT: V + c sqrt(ln N(parent) / N) (paper: sqrt 2)", ge=0
    )
    uct: Literal["mean", "published_code"] = _in(
        "trees",
        "mean",
        "mean = as in the paper; published_code divides the mean by the visits again",
    )
    reroot_after: int = _in(
        "trees",
        0,
        "go on from the best child after so many iterations, again and again; 0 = never",
        ge=0,
    )
    rounds: int = _in(
        "trees",
        1,
        "rounds of collecting; from the second on by the agent reranked with the round before's Q model",
        ge=1,
    )
    discount: float = _in(
        "trees",
        0.95,
        "what is left of a reward that is one step further away; 1 = all of it (paper)",
        gt=0,
        le=1,
    )
    stop_at_success: bool = _in(
        "trees", True, "end a search when a node has reward 1 (paper's code)"
    )
    invalid_value: float = _in(
        "trees", -1.0, "value of a refused action (paper's code: -1)", ge=-1, le=0
    )
    timeout_value: float = _in(
        "trees", -0.5, "value of reaching max_steps (paper's code: -0.5, HotPotQA -1)", ge=-1, le=0
    )

    # Preference pairs
    pairs: Literal["best_path", "all_nodes", "all_siblings"] = _in(
        "pairs",
        "all_nodes",
        "best_path = best against worst sibling along the best trajectory (paper); all_siblings = every two",
    )
    min_margin: float = _in("pairs", 0.05, "least difference of the two values", ge=0)
    min_visits: int = _in("pairs", 1, "least visits of both siblings", ge=0)
    heldout_share: float = _in(
        "pairs", 0.1, "share of the tasks whose pairs are held out of training", ge=0, lt=1
    )

    # The Q model
    beta: float = _in("q_model", 0.1, "beta of DPO (paper: 0.1 WebShop, 0.05 HotPotQA)", gt=0)
    log_prob: Literal["sum", "mean"] = _in(
        "q_model", "sum", "log-probability of an action over its tokens (paper: sum)"
    )
    q_base: str = _in(
        "q_model",
        "",
        "the model that is tuned to be the Q model, named as for agent; empty = the agent's own",
    )
    trainer: Literal["loop", "trl"] = _in(
        "q_model", "loop", "loop = plain PyTorch for small models; trl = DPOTrainer"
    )
    lora_rank: int = _in(
        "q_model", 0, "rank of the LoRA of trainer trl; 0 = full fine-tuning", ge=0
    )
    dpo_lr: float = _in("q_model", 1.0e-4, "learning rate of DPO (paper: 1e-6 for 1.3 B)", gt=0)
    dpo_schedule: Literal["linear", "constant"] = _in(
        "q_model",
        "linear",
        "learning rate after a tenth of warm-up: linear to 0, or constant (paper)",
    )
    dpo_epochs: int = _in("q_model", 1, "passes over the pairs (paper: 1)", ge=1)
    dpo_batch: int = _in("q_model", 8, "pairs a batch (paper: 64)", ge=1)
    control_shuffles: int = _in(
        "control",
        2,
        "controls trained on the same pairs with shuffled winners; every second is the opposite of the one before",
        ge=1,
    )

    # The baseline RFT
    rft: bool = _in(
        "rft",
        False,
        "also play the arm rft: the agent fine-tuned as in a warm start, on the best episodes of its own trees",
    )
    rft_min_reward: float = _in(
        "rft",
        0.5,
        "least terminal reward of an episode that RFT learns from; 1 = successes alone",
        ge=0,
        le=1,
    )
    rft_epochs: int = _in("rft", 3, "passes of RFT over them", ge=1)
    rft_lr: float = _in(
        "rft",
        2.0e-4,
        "peak learning rate of RFT, linear to 0; batch and rank are those of a warm start",
        gt=0,
    )

    # Evaluation
    test_tasks: int = _in("episodes", 300, "held-out tasks", ge=1)
    test_skip: int = _in(
        "episodes",
        0,
        "held-out tasks left out before them, such as those that earlier choices were judged on",
        ge=0,
    )
    rerank_temperature: float = _in(
        ("episodes", "trial"), 0.0, "0 = argmax of Q; else softmax(Q / T)", ge=0
    )
    prior_weight: float = _in(
        ("episodes", "trial"), 0.0, "share of the agent's own log-probability added to Q", ge=0
    )
    mcts_iterations: int = _in("episodes", 10, "iterations of the MCTS upper bound", ge=1)
    best_of: int = _in(
        "episodes",
        0,
        "whole episodes of the arm best_of_n, whose best counts (paper's Best-of-N: 5); 0 = no such arm",
        ge=0,
        later=True,
    )
    bootstrap: int = _in(None, 10000, "bootstrap resamples of a 95 % interval", ge=100)

    # Ablations
    rule_tasks: int = _in(
        "rules",
        0,
        "dev tasks on which each scoring rule is tried beside its own control; 0 = none",
        ge=0,
    )
    rule_n: int = _in("rules", 10, "candidates of the scoring rules", ge=1)
    grid: str = _in(None, "", "file of the grid of ablations, params/grids/*.yml; empty = none")
    trial_tasks: int = _in("trial", 200, "dev tasks of a cell of the grid", ge=1)
    trial_n: int = _in("trial", 10, "candidates of a cell of the grid", ge=1)
    trial_temperature: float = _in(
        "trial", 0.0, "temperature of a cell's candidates; 0 = that of the agent", ge=0
    )

    def stage_fields(self, stage: str) -> dict[str, Any]:
        """The parameters that decide a stage itself (not the stages before it)."""
        return {
            k: getattr(self, k)
            for k, f in type(self).model_fields.items()
            if stage in f.json_schema_extra["stages"]
            and self.environment in (f.json_schema_extra["worlds"] or (self.environment,))
            and not (f.json_schema_extra["later"] and getattr(self, k) == f.default)
        }

    def upstream(self, stage: str) -> tuple[str, ...]:
        """The stages before ``stage``, nearest last, without repeats."""
        order: dict[str, None] = {}
        for s in (*STAGES[stage], *(("rft",) if stage == "episodes" and self.rft else ())):
            order.update(dict.fromkeys((*self.upstream(s), s)))
        return tuple(order)

    def has(self, stage: str) -> bool:
        """Whether a run with these parameters has a stage that another may lack."""
        return {
            "other_agent": self.other_demonstrations > 0,
            "rft": self.rft,
            "rules": self.rule_tasks > 0,
            "trial": bool(self.grid),
        }.get(stage, True)

    def deciding(self, stage: str) -> dict[str, dict[str, Any]]:
        """All parameters that decide a stage's outcome, by the stage they belong to."""
        decides = {s: self.stage_fields(s) for s in (*self.upstream(stage), stage)}
        if (
            stage == "other_agent"
        ):  # the same recipe as the agent's, with its own size and demonstrations
            decides["agent"] = self.stage_fields("agent")
        if "trees" in decides and self.rounds > 1:
            decides["round before"] = {"q_model": self.round_before().digest("q_model")}
        return decides

    def each_seed(self) -> list[Params]:
        """The parameters of each chain of the run."""
        return [
            self.model_copy(update={"seed": self.seed + i, "seeds": 1}) for i in range(self.seeds)
        ]

    def round_before(self) -> Params:
        """The parameters whose Q model guides this round of collecting."""
        return self.model_copy(update={"rounds": self.rounds - 1})

    def digest(self, stage: str) -> str:
        """Eight hex digits of all that decides a stage's outcome."""
        text = json.dumps(self.deciding(stage), sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


def make(values: Mapping[str, Any], source: str = "parameters") -> Params:
    """Validate a mapping.

    Raises:
        QvlibError: an unknown key (with the nearest real one) or an ill-typed value.
    """
    known = Params.model_fields
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "`qvlib params` lists the real ones"
            raise QvlibError(f"{source}: unknown parameter {key!r}; {hint}")
    try:
        # YAML has no way to say that 2 is meant as 2.0; every other conversion stays refused.
        params = Params(
            **{k: float(v) if _is_float(k) and type(v) is int else v for k, v in values.items()}
        )
    except ValidationError as error:
        first = error.errors()[0]
        key, got = str(first["loc"][0]), first.get("input")
        note = (
            f" (write {float(got):.1e}: YAML reads {got!r} as text)"
            if isinstance(got, str) and _is_number(got)
            else ""
        )
        raise QvlibError(
            f"{source}: parameter {key!r}: {first['msg']}, got {got!r}{note}; "
            f"it means: {known[key].description}"
        ) from None
    for key, wrong in _inconsistent(params):
        raise QvlibError(f"{source}: parameter {key!r}: {wrong}")
    return params


def _inconsistent(params: Params) -> Iterator[tuple[str, str]]:
    """Parameters that do not fit each other or what they are for, with the remedy; of addresses and keys the value is not told."""
    for key, check in (("api_key_variable", wrong_key_variable), ("api_base_url", wrong_base_url)):
        if wrong := check(getattr(params, key)):
            yield key, wrong
    widths = {
        "agent_width": params.agent == "small",
        "other_width": params.other_agent == "small" and params.other_demonstrations > 0,
    }
    for key, used in widths.items():
        if used and getattr(params, key) % (2 * params.agent_heads):
            yield (
                key,
                (
                    f"{getattr(params, key)} is no multiple of twice agent_heads = {params.agent_heads}, since each head is of an even "
                    "size; change one of them"
                ),
            )
    if params.q_base == "small" or is_remote(params.q_base):
        yield (
            "q_base",
            (
                f"{params.q_base} cannot be tuned to be the Q model; leave it empty for the agent's own model, or name a model "
                "that lies here or on the hub"
            ),
        )
    served = [params.agent, *([params.other_agent] if params.other_demonstrations else [])]
    if params.prior_weight and any(map(is_remote, served)):
        yield (
            "prior_weight",
            "an agent behind a server tells no log-probabilities to weigh; set it to 0",
        )


def load(path: str | Path, **overrides: Any) -> Params:
    """Read a YAML parameter file.

    Raises:
        QvlibError: no such file, not a flat mapping, or what ``make`` refuses.
    """
    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise QvlibError(f"{path}: no such parameter file; see params/") from None
    except OSError as error:
        raise QvlibError(
            f"{path} cannot be read: {error.strerror}; give a parameter file, see params/"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise QvlibError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise QvlibError(f"{path}: a parameter file is a flat list of `key: value` lines")
    return make({**values, **overrides}, str(path))


def from_notebook(namespace: Mapping[str, Any]) -> Params:
    """The parameters a notebook's ``parameters`` cell (or papermill) set, from its ``globals()``.

    Every plain value in the namespace is taken for a parameter, so that a mistyped
    ``papermill -p`` stops here instead of being ignored.
    """
    plain = (str, int, float, bool, list, dict, type(None))
    found = {
        k: v
        for k, v in namespace.items()
        if not k.startswith("_") and k not in ("In", "Out") and isinstance(v, plain)
    }
    return make(found, "notebook parameters")


def _is_float(key: str) -> bool:
    return key in Params.model_fields and Params.model_fields[key].annotation is float


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
