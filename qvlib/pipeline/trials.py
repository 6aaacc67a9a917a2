"""Players on dev tasks: each scoring rule beside its control and its twin; cells of a grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from qvlib.agents.arm import Player
from qvlib.agents.listed import Listed
from qvlib.agents.reranking import is_policy
from qvlib.agents.twins import TWINS, chosen_by
from qvlib.base.errors import QvlibError
from qvlib.core.episodes import episode
from qvlib.core.reranker import Reranked
from qvlib.core.types import Agent, QModel
from qvlib.models.names import is_remote
from qvlib.pipeline.context import Context, chains, context_of
from qvlib.pipeline.params import TRIAL, Params
from qvlib.pipeline.playing import Play, play_stages
from qvlib.runs.stage import Stage, read_stage

MOST_CONTROLS = 4
"""Of the controls, so many are tried at most: enough to see a rule that gains by itself."""


@dataclass(frozen=True)
class Rule:
    """How a score chooses: from sampled or all admissible actions; argmax or softmax; a prior.

    log_prob: another way to score with a ``LogRatio``, where the Q model is one.
    """

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
        if self.prior_weight:
            return Reranked(sampled, None, n, prior_weight=1.0)
        return Reranked(sampled, None, n, temperature=1.0)


RULES = (
    Rule("argmax"),
    Rule("softmax", temperature=1.0),
    Rule("prior_half", prior_weight=0.5),
    Rule("prior_one", prior_weight=1.0),
    Rule("published_code", log_prob="published_code"),
    Rule("all_admissible", listed=True),
    Rule("all_admissible_prior_one", listed=True, prior_weight=1.0),
)


def try_rules(run: Params | Context) -> Stage:
    """Play every scoring rule of each chain with its control and its twin on dev tasks."""
    context = context_of(run)
    for chain in chains(context):
        params = chain.params
        tasks = chain.uses.dev[: params.ablations.rule_tasks]
        play_stages(Play(chain, {"rules": rule_names(params)}, rule_players, "dev", tasks))
    return read_stage(context.params.each_seed()[0], "rules")


def rules_of(params: Params) -> tuple[Rule, ...]:
    """The scoring rules that a run's estimator allows."""
    return tuple(rule for rule in RULES if is_policy(params) or not rule.log_prob)


def _controls(params: Params) -> int:
    return min(params.q_model.control_shuffles, MOST_CONTROLS)


def rule_names(params: Params) -> list[str]:
    """``sample``, and per rule ``<rule>:q``, ``<rule>:twin`` and ``<rule>:control/<shuffle>``."""
    controls = [f"control/{k}" for k in range(_controls(params))]
    variants = ("q", "twin", *controls)
    return ["sample", *(f"{rule.name}:{what}" for rule in rules_of(params) for what in variants)]


def rule_players(context: Context, names: Sequence[str]) -> dict[str, Player]:
    """The player of each of ``rule_names``.

    Raises:
        QvlibError: the agent is behind a server.
    """
    params = context.params
    if is_remote(params.agent.agent):
        raise QvlibError(
            "rule_tasks: scoring rules weigh log-probabilities, which "
            f"{params.agent.agent} does not tell; set rule_tasks to 0"
        )
    n = params.ablations.rule_n
    controls = {f"control/{k}": context.control(k) for k in range(_controls(params))}
    sample = context.sampler()
    listed = Listed(sample, context.environment, context.model())
    agents: dict[str, Agent] = {"sample": sample}
    for rule in rules_of(params):
        agent = listed if rule.listed else sample
        agents[f"{rule.name}:twin"] = rule.twin(agent, n)
        for what, model in {"q": context.q_model(), **controls}.items():
            scorer = replace(model, rule=rule.log_prob) if rule.log_prob else model
            agents[f"{rule.name}:{what}"] = rule.agent(agent, scorer, n)
    return {name: Player(agents[name], episode) for name in names}


def trial_of(context: Context, stages: Sequence[str] = ("trial",)) -> Play:
    """One chain of a cell of a grid on dev tasks.

    stages: ``trial``, which holds ``sample`` and the reranked agent ``q``, and of each twin of the
    cell ``trial/<twin>``.
    """
    tasks = context.uses.dev[: context.params.ablations.trial_tasks]
    names = {stage: players_of(stage) for stage in stages}
    return Play(context, names, trial_players, "dev", tasks)


def try_cell(run: Params | Context, stages: Sequence[str] = ("trial",)) -> Stage:
    """Play one chain of a cell of a grid, see ``trial_of``; gives ``trial``."""
    context = context_of(run)
    play_stages(trial_of(context, stages))
    return read_stage(context.params, "trial")


def players_of(stage: str) -> tuple[str, ...]:
    """Whose episodes a stage of a cell holds."""
    return ("sample", "q") if stage == "trial" else (stage.removeprefix(TRIAL),)


def trial_players(context: Context, names: Sequence[str]) -> dict[str, Player]:
    """One sample of the agent as it is, what the cell's Q model chooses, what its twins choose."""
    makers = {"sample": Context.sampler, "q": _reranked, **{t.name: t.agent for t in TWINS}}
    return {name: Player(makers[name](context), episode) for name in names}


def _reranked(context: Context) -> Agent:
    return chosen_by(context, context.q_model())
