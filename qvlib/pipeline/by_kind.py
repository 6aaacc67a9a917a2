"""What Q says of a kind of action on the whole: a table from the states of the training pairs."""

from __future__ import annotations

from qvlib.agents.arm import Cast
from qvlib.agents.reading import kind_in, mean_by_kind
from qvlib.base.errors import QvlibError
from qvlib.base.seeding import generator
from qvlib.core.episodes import replay
from qvlib.core.preferences import hold_out
from qvlib.pipeline.pair_rows import load_pairs

PAIRS = 400  # a mean of a kind needs no more


def table(cast: Cast) -> dict[tuple[str, str], float]:
    """(page, kind) -> mean Q over the actions of at most ``PAIRS`` training pairs.

    Raises:
        QvlibError: there are no training pairs.
    """
    params = cast.params
    pairs, _ = hold_out(load_pairs(params), params.pairs.heldout_share, params.run.seed)
    if not pairs:
        raise QvlibError("no training pairs to tell the mean Q of a kind of action from")
    if len(pairs) > PAIRS:
        chosen = generator(params.run.seed, "by kind").choice(len(pairs), PAIRS, replace=False)
        pairs = [pairs[i] for i in sorted(chosen)]
    tasks = {task.id: task for task in cast.environment.tasks("train")}
    states = [replay(cast.environment, tasks[pair.task], pair.path) for pair in pairs]
    actions = [(pair.chosen, pair.rejected) for pair in pairs]
    return mean_by_kind(cast.q_model(), zip(states, actions, strict=True), kind_in(cast))
