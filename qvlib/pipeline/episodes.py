"""Playing arms on tasks: a folder of episodes an arm, so that a new arm replays no other."""

from __future__ import annotations

from collections.abc import Sequence

from qvlib.agents.arm import Arm, Player
from qvlib.pipeline.context import Context, chains, context_of
from qvlib.pipeline.params import DEV, EPISODES, Params
from qvlib.pipeline.playing import Play, play_stages
from qvlib.pipeline.q import train_eto
from qvlib.pipeline.rft import train_rft
from qvlib.pipeline.scored import score_pairs
from qvlib.runs.stage import Stage, read_stage


def play(run: Params | Context) -> list[Stage]:
    """Play every arm of each chain on the test tasks; gives the first chain's folders, one an arm.

    ``episodes/<arm>`` holds ``episodes.jsonl``, a line an episode, then ``episodes.parquet``. What
    an arm builds on and only it needs, such as the agent of ``rft``, is made first. Last the pairs
    that the arm ``search`` found are scored, see ``score_pairs``.
    """
    context = context_of(run)
    if any("rft" in arm.needs for arm in context.params.arms()):
        train_rft(context)
    if any("eto" in arm.needs for arm in context.params.arms()):
        train_eto(context)
    for chain in chains(context):
        play_arms(chain, chain.params.arms())
    score_pairs(context)
    first = context.params.each_seed()[0]
    return [read_stage(first, f"{EPISODES}{arm.name}") for arm in first.arms()]


def play_arms(context: Context, arms: Sequence[Arm]) -> None:
    """Play arms of one chain, those that are not finished, on the test tasks."""
    play_stages(play_of(context, arms))


def play_of(context: Context, arms: Sequence[Arm]) -> Play:
    """Arms of one chain on the test tasks."""
    names = {f"{EPISODES}{arm.name}": arm.names(context.params) for arm in arms}
    return Play(context, names, arm_players, "test", context.uses.test)


def dev_play_of(context: Context, arm: Arm) -> Play:
    """An arm of one chain on the dev tasks on which settings are chosen."""
    tasks = context.uses.dev[: context.params.ablations.trial_tasks]
    return Play(context, {f"{DEV}{arm.name}": arm.names(context.params)}, arm_players, "dev", tasks)


def arm_players(context: Context, names: Sequence[str]) -> dict[str, Player]:
    """The players of variants of arms."""
    players: dict[str, Player] = {}
    for name in dict.fromkeys(name.partition("/")[0] for name in names):
        players |= context.params.arm(name).players(context)
    return players
