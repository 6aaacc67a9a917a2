"""The method in a few lines of one's own: no parameter file, no folders to keep.

What the stages do with parameters, workers and files, done here and now in this process. For work
that is to be resumed, compared or reported, use the stages.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qvlib import environments
from qvlib.core.episodes import decisions, demonstrate
from qvlib.core.preferences import Pair
from qvlib.core.types import Environment, QModel
from qvlib.estimators import Problem, estimator_of
from qvlib.pipeline.cards import notes
from qvlib.pipeline.params import typed_settings

if TYPE_CHECKING:
    from qvlib.models.local import LocalModel


def make_environment(name: str = "webshop", **settings: Any) -> Environment:
    """An environment by name, on data that it brings itself unless ``data_dir`` is set.

    name: ``webshop``, ``hotpotqa``, ``textworld``, ``scienceworld``, or ``module:WORLD``.
    settings: those of the world, such as ``max_steps`` or ``catalogue_products``.

    Raises:
        QvlibError: no such world, a setting that it does not have, an ill-typed value, or what it
            needs is missing.
    """
    world = environments.world_of(name)
    chosen = typed_settings(world.settings, {"environment": name, **settings}, "make_environment")
    folder = Path(tempfile.mkdtemp(dir=_temporary_folder().name))
    if not chosen.data_dir and world.make_data is not None:
        world.make_data(chosen, folder)
    return environments.make_environment(world, chosen, folder)


@functools.cache
def _temporary_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder that goes with the process."""
    return tempfile.TemporaryDirectory(prefix="qvlib-")


def clone_agent(
    environment: Environment,
    demonstrations: int = 500,
    *,
    world: str = "",
    seed: int = 0,
    width: int = 64,
    layers: int = 1,
    heads: int = 2,
    vocabulary: int = 1024,
    epochs: int = 1,
    lr: float = 6e-3,
    batch: int = 4,
    description_words: int = 10,
) -> LocalModel:
    """A small language model, cloned from scripted episodes on the first training tasks.

    ``clone_agent(...).agent(temperature, top_p)`` is an agent. world: the name of the world, where
    the environment does not tell it by its own. The rest are the parameters of behaviour cloning.

    Raises:
        QvlibError: the environment has no demonstrator.
    """
    from tqdm.auto import tqdm

    from qvlib.models import small
    from qvlib.models.local import LocalModel
    from qvlib.models.prompts import as_cloned

    record = environments.world_of(world or environment.name)
    script = environments.demonstrator(record, environment)
    tasks = environment.tasks("train")[:demonstrations]
    records = demonstrate(environment, tasks, script, seed, 64)
    shown = [
        small.Demonstration(state, action)
        for task, episode in zip(tasks, records, strict=True)
        for state, action in decisions(environment, task, episode["actions"])
    ]
    tokenizer = small.train_tokenizer(shown, vocabulary, description_words)
    model = small.make_model(tokenizer, width, layers, heads, seed)
    steps = small.clone(model, tokenizer, shown, epochs=epochs, lr=lr, batch=batch, seed=seed)
    total = epochs * -(-len(shown) // batch)
    for _ in tqdm(steps, desc="cloning", unit="batch", total=total):
        pass
    return LocalModel(model, tokenizer, as_cloned(tokenizer))


def fit(
    environment: Environment,
    reference: LocalModel,
    pairs: Sequence[Pair],
    *,
    estimator: str = "step_dpo",
    seed: int = 0,
    **settings: Any,
) -> QModel:
    """A Q model fitted to preference pairs of training tasks; ``reference`` does not change.

    estimator: by name or ``module:ESTIMATOR``; settings: its own, such as ``beta`` and ``dpo_lr``.
    What went another way than usual, such as pairs too long for the model, is printed.

    Raises:
        QvlibError: no such estimator, a setting that it does not have, an ill-typed value, or no
            pair fits the model's context.
    """
    chosen = estimator_of(estimator)
    options = typed_settings(chosen.settings, settings, "fit")
    from qvlib.models.loading import load_folder  # which takes seconds

    with tempfile.TemporaryDirectory(prefix="qvlib-") as scratch:
        problem = Problem(
            environment=environment,
            reference=reference,
            train=pairs,
            held_out=(),
            trees=lambda: (),
            seed=seed,
            label=chosen.name,
            scratch=Path(scratch) / "scratch",
        )
        folder = Path(scratch) / "model"
        fitted = chosen.fit(problem, options)
        for note in notes(fitted.facts):
            print(note)
        fitted.save(folder)

        def open_model(path: Path, dtype: str) -> LocalModel:
            style, longest = reference.style, reference.max_action_tokens
            return load_folder(path, dtype=dtype, max_action_tokens=longest, style=lambda _: style)

        return chosen.load(folder, reference, options, open_model)
