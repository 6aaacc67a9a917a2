"""What an estimator of a step's value is: its settings, how it is fitted, how it is loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qvlib.base.settings import Settings
from qvlib.core.preferences import Pair
from qvlib.core.step_values import Siblings, Values, backed_up, siblings
from qvlib.core.trees import Row
from qvlib.core.types import Environment, QModel, Task
from qvlib.estimators.dealing import dealt, dealt_ends, dealt_values

if TYPE_CHECKING:
    from qvlib.models.local import LocalModel

OpenModel = Callable[[Path, str], "LocalModel"]
"""(folder, dtype) -> the model saved there, prompted as the run's models are."""


@dataclass(frozen=True)
class Problem:
    """What an estimator is fitted to.

    reference: the model that is tuned or read; it must not change.
    train, held_out: preference pairs, of other tasks each; held_out may be empty. For a control the
        winners of ``train`` are shuffled.
    trees: reads the records that the pairs come from (``qvlib.core.trees.tree_record``), for
        estimators that need values; not called, nothing is read.
    label: what the progress bar says.
    scratch: a folder of its own for checkpoints, not there yet perhaps; what is left in it stays
        until the model is saved.
    shuffle: of a control, which of its shuffles it is; None = no control. Estimators need not look:
        ``train``, ``train_trees``, ``train_siblings`` and ``train_ends`` are what they are to be
        fitted to.
    features: a folder for frozen hidden states, which fits of the same trees share; None = they are
        not kept.
    solution: what solves a training task, in words, for estimators that may read it in training;
        None = the world tells none.
    """

    environment: Environment
    reference: LocalModel
    train: Sequence[Pair]
    held_out: Sequence[Pair]
    trees: Callable[[], Iterable[Mapping[str, Any]]]
    seed: int
    label: str
    scratch: Path
    features: Path | None = None
    shuffle: int | None = None
    solution: Callable[[Task], str] | None = None

    def train_trees(self) -> Iterator[Mapping[str, Any]]:
        """The trees but those of tasks that pairs are held out of; for a control dealt anew."""
        for tree in self._kept():
            yield tree if self.shuffle is None else dealt(tree, self.seed, self.shuffle)

    def train_siblings(
        self, values: Callable[[Mapping[str, Any]], Values] = backed_up
    ) -> Iterator[Siblings]:
        """The states of those trees, with values by a rule, which of a control are dealt."""
        for tree in self._kept():
            known = values(tree)
            if self.shuffle is not None:
                known = dealt_values(tree, known, self.seed, self.shuffle)
            yield from siblings(tree, known)

    def train_ends(
        self,
        ends: Callable[[Mapping[str, Any]], Values],
        weight: Callable[[Row], float],
        left: float,
    ) -> Iterator[tuple[Mapping[str, Any], Values]]:
        """Those trees with their ends by a rule, which of a control are dealt (``dealt_ends``).

        left: the discount factor of the backup that they are read by.
        """
        for tree in self._kept():
            known = ends(tree)
            if self.shuffle is not None:
                known = dealt_ends(tree, known, weight, left, self.seed, self.shuffle)
            yield tree, known

    def _kept(self) -> Iterator[Mapping[str, Any]]:
        held = {pair.task for pair in self.held_out}
        return (tree for tree in self.trees() if tree["task"] not in held)


@dataclass(frozen=True)
class Card:
    """What the README.md beside a fitted model tells of the method.

    library: the library that reads the weights, as model hubs name it. tags: for hubs too.
    score: what a score is, its unit, and what it may be compared with; sentences.
    recipe: how it was fitted, one line.
    """

    library: str
    tags: tuple[str, ...]
    score: str
    recipe: str


@dataclass(frozen=True)
class Fitted:
    """A fitted estimator.

    save: writes the model's folder (weights, tokenizer), which is not there yet. Where a launcher
        started several processes, only the first calls it.
    curve: the training curve, a row a step.
    facts: JSON values; at least ``pairs`` and ``held_out_pairs`` (used), ``dropped_pairs`` and
        ``dropped_held_out_pairs`` (longer than the model's context), and ``held_out_accuracy``
        in [0, 1] (None where nothing was held out). ``held_out_by_task``, task -> [ordered rightly,
        pairs] (``qvlib.estimators.data.ordered_by_task``), where told, gives the accuracy an
        interval: pairs of one task are not independent. ``packed`` is false where pairs that are
        usually one row of a pass were two.
    """

    save: Callable[[Path], None]
    curve: list[dict[str, Any]]
    facts: dict[str, Any]
    card: Card


@dataclass(frozen=True)
class Estimator:
    """A way to estimate the value of a step. One is one small file and one line in ``ESTIMATORS``.

    settings: its own settings; those that say nothing else decide the stage ``q_model``.
    fit: (problem, settings) -> Fitted. Every random draw derives from the problem's seed.
    load: (folder that ``Fitted.save`` wrote, the reference, settings, ``OpenModel``) -> scorer.
    policy: whether the scorer is a ``LogRatio``, a tuned model that can itself be sampled. Without
        one the arm ``tuned_policy`` and the scoring rule ``published_code`` are not played.
    values: whether a score of (state, action) estimates the value of the next state in the units of
        reward, so that scores compare states too. A log-ratio ranks the actions of one state alone
        (it is Q - V up to a constant of the state): arms that compare states refuse it. Settings
        that decide it have a property ``values``, see ``compares_states``.
    loss: ``module:FUNCTION`` that is minimised, for pages that show it; without one they show
        ``fit``. unit: of a score, such as ``nats``.
    asks: whether the reference is asked in words and never tuned or read, so that it may be a model
        behind a server.
    sources: file name -> sha256 of the module that one's own was read from, for manifests; filled
        in by ``estimator_of``.
    """

    name: str
    settings: type[Settings]
    fit: Callable[[Problem, Any], Fitted]
    load: Callable[[Path, LocalModel, Any, OpenModel], QModel]
    policy: bool = False
    values: bool = False
    loss: str = ""
    unit: str = ""
    asks: bool = False
    sources: Mapping[str, str] = field(default_factory=dict)

    def compares_states(self, settings: Settings) -> bool:
        """``values``, unless these settings make it something else."""
        return self.values and getattr(settings, "values", True)
