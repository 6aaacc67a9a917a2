"""What a stage works with, built once and handed in: environment, tasks, agents, Q models."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from qvlib import environments
from qvlib.agents.arms import BASE
from qvlib.agents.listed import Choosing
from qvlib.agents.verdicts import Judging, Verdicts
from qvlib.core.filtering import Filtered
from qvlib.core.types import Agent, Environment, QModel
from qvlib.environments import World
from qvlib.pipeline import by_kind, data, models
from qvlib.pipeline.params import EPISODES, Params


class Context:
    """The environment, the tasks, the models of one chain; each is made when first asked for.

    It meets ``qvlib.agents.arm.Cast``. Sent to a worker, it is built there anew, once a worker and
    chain, so that models are loaded once however many parts of the work it takes.
    """

    def __init__(self, params: Params, environment: Environment | None = None) -> None:
        self.params = params
        if environment is not None:
            self.environment = environment
        self._models: dict[Any, Any] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return _in_worker, (self.params,)

    @cached_property
    def environment(self) -> Environment:
        """The environment on the run's data."""
        return data.load_environment(self.params)

    @cached_property
    def world(self) -> World:
        """What is known of the kind of environment."""
        return data.world_of(self.params)

    @cached_property
    def uses(self) -> data.Uses:
        """Which tasks are used for what."""
        return data.uses(self.params, self.environment)

    @cached_property
    def conversation(self) -> models.Conversation:
        """What chat models are told of the environment."""
        return models.conversation(self)

    def demonstrator(self, errors: float | None = None) -> Agent:
        """The scripted agent of the world, which errs as often as ``demonstrator_errors`` says.

        errors: another rate.

        Raises:
            QvlibError: the world has none.
        """
        return models.demonstrator(self, errors)

    def model(self, which: str = "agent", dtype: str = "") -> Any:
        """The model of ``agent``, ``other_agent``, ``rft`` or ``eto``."""
        return self._once((which, dtype), lambda: models.load_of_stage(self, which, dtype))

    def reference(self) -> Any:
        """The model that Q models are tuned from and compared with."""
        return self._once("reference", lambda: models.load_reference(self))

    def q_model(self) -> QModel:
        """The Q model."""
        return self._once("q_model", lambda: models.load_q(self, "q_model", "model"))

    def q_by_kind(self) -> Mapping[tuple[str, str], float]:
        """Mean Q of each kind of page and action, over states of the training pairs."""
        return self._once("q_by_kind", lambda: by_kind.table(self))

    def control(self, shuffle: int) -> QModel:
        """A Q model trained on shuffled labels."""
        name = f"model-{shuffle}"
        return self._once(name, lambda: models.load_q(self, "control", name))

    def critic(self, number: int) -> QModel:
        """A Q model that was fitted to a part of the tasks."""
        name = f"model-{number}"
        return self._once(f"critic {number}", lambda: models.load_q(self, "critics", name))

    def judging(self, agent: Agent) -> Agent:
        """An agent that is also asked for verdicts on ends, where a model's are the rewards."""
        judge = self._once("judge", lambda: models.load_judge(self))
        return agent if judge is None else Judging(agent, judge)

    def judge(self) -> Verdicts | None:
        """The judge of one search or episode; None where the world's own rewards count."""
        return Verdicts() if self.params.judge else None

    def sampler(
        self, which: str = "agent", greedy: bool = False, temperature: float | None = None
    ) -> Agent:
        """An agent sampled as the run says; refused and no-effect actions are drawn again.

        which: ``agent``, ``other_agent``, ``rft``, ``eto``, or ``q_model`` for the tuned policy
            itself.
        """
        policy = self.q_model().policy if which == "q_model" else self.model(which)
        return sampler(self, policy, greedy, temperature)

    def sampled(self) -> str:
        """What is the same where the agent and how it is sampled are."""
        return self.params.digest(f"{EPISODES}{BASE}")

    def take_over(self, other: Context) -> None:
        """Take what another context has made that is the same here, and leave it no model.

        That is the environment, and the agent's model with all that it remembers.
        """
        if other is self:
            return
        mine, its = self.params, other.params
        if "environment" in vars(other) and mine.digest("data") == its.digest("data"):
            self.environment = other.environment
        if self.sampled() == other.sampled() and mine.run.device == its.run.device:
            self._models |= {
                key: model
                for key, model in other._models.items()
                if isinstance(key, tuple) and key[0] == "agent"
            }
        other._models.clear()

    def _once(self, key: Any, load: Any) -> Any:
        if key not in self._models:
            self._models[key] = load()
        return self._models[key]


def context_of(run: Params | Context) -> Context:
    """A context for parameters, with the data prepared; one that is given, as it is."""
    return run if isinstance(run, Context) else Context(run, data.prepare_data(run))


@functools.lru_cache(2)
def _in_worker(params: Params) -> Context:
    return Context(params)


def sampler(
    context: Context, lm: Any, greedy: bool = False, temperature: float | None = None
) -> Agent:
    """The agent of a model: sampled as the parameters say, refused actions drawn again."""
    how, environment = context.params.sampling, context.environment
    warmth = how.temperature if temperature is None else temperature
    sampled = lm.agent(warmth, how.top_p)
    agent = lm.agent(0.0, 1.0) if greedy else sampled
    if how.filter_actions:
        # What greedy decoding would refuse again and again is drawn from the distribution instead.
        agent = Filtered(agent, environment, fallback=sampled if greedy else None)
    if how.listed_actions:
        return Choosing(agent, environment, lm, 0.0 if greedy else warmth, how.top_p)
    return agent


def guide(context: Context) -> Agent:
    """An agent that finds its way before anything is trained: the demonstrator.

    In a world without one, the model that the parameter ``agent`` names, or its cloned model.

    Raises:
        QvlibError: there is no demonstrator, and no model either.
    """
    known = environments.has_demonstrator(context.world, context.environment)
    if known or context.params.agent.agent == "small":
        return Filtered(context.demonstrator(), context.environment)
    return sampler(context, models.load(context, context.params.agent.agent))


def chains(context: Context) -> list[Context]:
    """The contexts of each chain of a run, which share the environment."""
    if context.params.run.seeds == 1:
        return [context]
    return [Context(chain, context.environment) for chain in context.params.each_seed()]


def before(context: Context) -> Context:
    """The context of the round of collecting before this one."""
    return Context(context.params.round_before(), context.environment)
