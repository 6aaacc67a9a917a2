"""The settings of ScienceWorld, which chooses experiments by them."""

from __future__ import annotations

from qvlib.base.settings import setting
from qvlib.environments.world import WorldSettings, dev_part, step_limit, test_part


class ScienceWorldSettings(WorldSettings):
    """The settings of ScienceWorld."""

    environment: str = setting("scienceworld", "the environment by name")
    data_dir: str = setting("", "folder with experiments.jsonl; empty = chosen by the settings")
    max_steps: int = step_limit(
        100, "commands after which an experiment is cut off (ScienceWorld's paper: 100)"
    )
    dev_share: float = dev_part("variations")
    test_share: float = test_part("variations")
    game_count: int = setting(120, "variations that make tasks, in turn from all tasks", ge=3)
    catalogue_seed: int = setting(0, "seed of the order of tasks and variations", ge=0)
