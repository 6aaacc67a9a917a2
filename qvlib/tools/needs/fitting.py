"""How an estimator's model is fitted: which copies of the model are held, and what they read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from qvlib.base.errors import QvlibError
from qvlib.estimators.bradley_terry import BradleyTerrySettings
from qvlib.estimators.digi_q import DigiQSettings
from qvlib.estimators.head_settings import HeadSettings
from qvlib.estimators.hl_gauss import HLGaussSettings
from qvlib.estimators.llm_value import LlmValueSettings
from qvlib.estimators.oreo import OreoSettings
from qvlib.estimators.pqm import PQMSettings
from qvlib.estimators.step_dpo import StepDPOSettings
from qvlib.estimators.sweet_rl import SweetRLSettings
from qvlib.estimators.trajectory_dpo import TrajectoryDPOSettings
from qvlib.estimators.tuned import TunedSettings
from qvlib.pipeline.params import Params
from qvlib.tools.needs.counts import Measured
from qvlib.tools.needs.prompts import Lengths

Reads = Literal["pairs", "trajectories", "states", "paths", "features", "nothing"]
SAYS: dict[Reads, str] = {
    "pairs": "each pair",
    "trajectories": "the best and the worst trajectory of each tree",
    "states": "each state with its visited actions",
    "paths": "each path of a tree, its steps one by one",
    "features": "each visited action once, whatever is fitted to its hidden state",
    "nothing": "nothing",
}
CRITICS = 4  # heads of temporal differences, two of Q and two of V


@dataclass(frozen=True)
class Fitting:
    """Copies of the Q model's size while it is fitted, and what they read.

    reads: what a loss is taken of, in batches of ``batch``. held: copies without a gradient, the
    reference among them. trained: copies with one; of an adapter of rank ``lora`` its own
    parameters alone. own: copies that a fitted Q model keeps; 0 = it reads the reference. passes:
    over what is read in each epoch, a pass backward as two; ``once`` before the first. heads:
    numbers of the heads that are trained; followed: of heads that follow them. readers: models that
    read what is scored. apart: whether two actions of a state have each a prompt of their own.
    """

    reads: Reads
    held: int = 1
    trained: int = 0
    own: int = 0
    epochs: int = 1
    batch: int = 1
    passes: int = 0
    once: int = 0
    heads: int = 0
    followed: int = 0
    lora: int = 0
    readers: int = 1
    apart: bool = False

    def sequence(self, params: Params) -> int:
        """Tokens of the least that passes together, at its longest."""
        longest = params.agent.prompt_tokens + params.sampling.max_action_tokens
        steps = params.world.max_steps
        if self.reads == "states":
            actions = params.search.expand_n
            return params.agent.prompt_tokens + actions * params.sampling.max_action_tokens
        return {"pairs": 2, "trajectories": 2 * steps, "paths": steps}.get(self.reads, 1) * longest

    def in_all(self) -> int:
        """Passes over what is read, of one model."""
        return self.once + self.passes * self.epochs


def fitting(params: Params, hidden: int = 0) -> Fitting:
    """How the estimator's settings have its model fitted.

    hidden: size of a hidden state, for the heads.

    Raises:
        QvlibError: an estimator of one's own, of which that is not known.
    """
    how = params.estimator
    if isinstance(how, TunedSettings):
        lora, apart = 0, False
        if isinstance(how, StepDPOSettings):
            lora, apart = (how.lora_rank if how.adapts else 0), how.trainer == "trl"
        whole = isinstance(how, TrajectoryDPOSettings | SweetRLSettings)
        return Fitting(
            "trajectories" if whole else "pairs",
            trained=1,
            own=1,
            epochs=how.dpo_epochs,
            batch=how.dpo_batch,
            passes=3,
            once=1,
            lora=lora,
            readers=2,
            apart=apart,
        )
    if isinstance(how, HeadSettings):
        return _of_a_head(how, hidden)
    if isinstance(how, OreoSettings):
        return Fitting(
            "paths",
            trained=2,
            own=1,
            epochs=how.fit_epochs,
            batch=how.fit_batch,
            passes=2 * 3 + 1,  # policy and value, and the reference
            heads=hidden + 1,
        )
    if isinstance(how, LlmValueSettings):
        return Fitting("nothing", epochs=0)
    raise QvlibError(
        f"estimator {params.q_model.estimator!r}: what fitting one of your own takes is not known; "
        "leave estimator out for the needs of everything else"
    )


def epochs(params: Params) -> int:
    """How often what a loss is taken of is gone through; 1 of an estimator of one's own."""
    known = TunedSettings | HeadSettings | OreoSettings | LlmValueSettings
    return fitting(params).epochs if isinstance(params.estimator, known) else 1


def _of_a_head(how: HeadSettings, hidden: int) -> Fitting:
    critics = isinstance(how, DigiQSettings)
    outputs = how.histogram_bins if isinstance(how, HLGaussSettings) else 1
    width = how.head_width
    one = hidden * width + width + (width or hidden) * outputs + outputs
    heads = one * (CRITICS if critics else 1)
    told = Fitting("features", once=1, heads=heads, followed=heads if critics else 0)
    if how.features == "frozen":
        return told
    apart = isinstance(how, BradleyTerrySettings) and how.trainer == "trl"
    reads: Reads = "states"
    if isinstance(how, BradleyTerrySettings):
        reads = "pairs"
    elif isinstance(how, PQMSettings):
        reads = "paths"
    return replace(
        told,
        reads=reads,
        held=2 if critics else 1,  # a target network
        trained=1,
        own=1,
        epochs=how.fit_epochs,
        batch=how.fit_batch,
        passes=3 + (2 if critics else 0),  # the targets read the state, and the one after it
        once=0,
        apart=apart,
    )


def read_of_a_tree(params: Params, run: Measured, length: Lengths) -> float:
    """Tokens of what a loss is taken of in one tree, once over.

    A search visits a node an iteration, at most, below the states that it expands; a path is as
    long as an episode of arm ``greedy``.
    """
    how, step = fitting(params), length.prompt + length.action
    steps = min(run.arms["greedy"].steps, params.world.max_steps)
    visited = params.search.iterations
    states = min(visited, _expansions(run) * visited / run.iterations)
    return {
        "pairs": run.pairs_a_tree(params.pairs)
        * ((1 + how.apart) * length.prompt + 2 * length.action),
        "trajectories": 2 * steps * step,
        "states": states * length.prompt + visited * length.action,
        "paths": (visited - states) * steps * step,
        "features": visited * step,
        "nothing": 0.0,
    }[how.reads]


def _expansions(run: Measured) -> float:
    """Of a tree of the run: there ``expand_n`` replies follow a prompt, one at other steps."""
    return (run.search.replies - run.search.prompts) / max(1, run.expand_n - 1)
