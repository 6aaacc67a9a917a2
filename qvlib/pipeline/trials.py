"""Arms on dev tasks: each scoring rule beside its control and its twin without Q; one cell of a grid."""

from __future__ import annotations

from dataclasses import dataclass, replace

from qvlib.agents.listed import Listed
from qvlib.base.errors import QvlibError
from qvlib.core.reranker import Reranked
from qvlib.core.types import Agent, Environment, QModel
from qvlib.models.names import is_remote
from qvlib.pipeline.agents import sampler
from qvlib.pipeline.common import for_each_seed
from qvlib.pipeline.episodes import play_arms
from qvlib.pipeline.models import load_model
from qvlib.pipeline.params import Params
from qvlib.pipeline.q import load_q
from qvlib.pipeline.world import uses, world
from qvlib.runs.stage import Stage


@dataclass(frozen=True)
class Rule:
    """How a score chooses: from sampled candidates or from all admissible actions too; argmax or softmax; a prior."""

    name: str
    listed: bool = False
    temperature: float = 0.0
    prior_weight: float = 0.0
    log_prob: str = ""

    def agent(self, sampled: Agent, q_model: QModel, n: int) -> Agent:
        """The agent that chooses so."""
        return Reranked(sampled, q_model, n, self.temperature, self.prior_weight)

    def twin(self, sampled: Agent, n: int) -> Agent:
        """The same choice without Q: the likeliest where the prior counts, else a random one."""
        return (
            Reranked(sampled, None, n, prior_weight=1.0)
            if self.prior_weight
            else Reranked(sampled, None, n, temperature=1.0)
        )


RULES = (
    Rule("argmax"),
    Rule("softmax", temperature=1.0),
    Rule("prior_half", prior_weight=0.5),
    Rule("prior_one", prior_weight=1.0),
    Rule("published_code", log_prob="published_code"),
    Rule("all_admissible", listed=True),
    Rule("all_admissible_prior_one", listed=True, prior_weight=1.0),
)


@for_each_seed
def try_rules(params: Params) -> Stage:
    """Play every scoring rule with its control and its twin on dev tasks: ``episodes.parquet``."""
    return play_arms(
        params,
        "rules",
        rule_arms,
        rule_names(params),
        uses(params, world(params)).dev[: params.rule_tasks],
    )


def rule_names(params: Params) -> list[str]:
    """``sample``, and for each rule ``<rule>:q``, ``<rule>:twin`` and ``<rule>:control/<shuffle>``."""
    controls = [f"control/{k}" for k in range(params.control_shuffles)]
    return [
        "sample",
        *(f"{rule.name}:{what}" for rule in RULES for what in ("q", "twin", *controls)),
    ]


def rule_arms(params: Params, environment: Environment) -> dict[str, Agent]:
    """The agent of each name of ``rule_names``."""
    if is_remote(params.agent):
        raise QvlibError(
            f"rule_tasks: scoring rules weigh log-probabilities, which {params.agent} does not tell; set rule_tasks to 0"
        )
    lm = load_model(params)
    q = load_q(params, agent=lm)
    controls = {
        f"control/{k}": load_q(params, f"model-{k}", "control", reference=q.reference)
        for k in range(params.control_shuffles)
    }
    sample = sampler(params, environment, lm)
    listed = Listed(sample, environment, lm)
    found: dict[str, Agent] = {"sample": sample}
    for rule in RULES:
        agent = listed if rule.listed else sample
        found[f"{rule.name}:twin"] = rule.twin(agent, params.rule_n)
        for what, model in {"q": q, **controls}.items():
            model = replace(model, rule=rule.log_prob) if rule.log_prob else model
            found[f"{rule.name}:{what}"] = rule.agent(agent, model, params.rule_n)
    return {name: found[name] for name in rule_names(params)}


def try_cell(params: Params) -> Stage:
    """Play ``sample`` and the reranked agent of a cell of a grid on dev tasks: ``episodes.parquet``."""
    return play_arms(
        params,
        "trial",
        trial_arms,
        ["sample", "q"],
        uses(params, world(params)).dev[: params.trial_tasks],
    )


def trial_arms(params: Params, environment: Environment) -> dict[str, Agent]:
    """One sample of the agent as it is; the reranked agent with the cell's candidates."""
    lm = load_model(params)
    candidates = params.model_copy(
        update={"temperature": params.trial_temperature or params.temperature}
    )
    q = load_q(params, agent=lm)
    return {
        "sample": sampler(params, environment, lm),
        "q": Reranked(
            sampler(candidates, environment, lm),
            q,
            params.trial_n,
            params.rerank_temperature,
            params.prior_weight,
        ),
    }
