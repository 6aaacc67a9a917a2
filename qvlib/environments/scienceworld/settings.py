"""The settings of ScienceWorld, which chooses experiments by them."""

from __future__ import annotations

from qvlib.base.settings import setting
from qvlib.environments.world import WorldSettings


class ScienceWorldSettings(WorldSettings):
    """The settings of ScienceWorld."""

    environment: str = setting("scienceworld", "the environment by name")
    data_dir: str = setting("", "folder with experiments.jsonl; empty = chosen by the settings")
    max_steps: int = setting(
        100, "commands after which an experiment is cut off (ScienceWorld's paper: 100)", ge=1
    )
    dev_share: float = setting(0.1, "share of the variations in the dev split", gt=0, lt=0.5)
    test_share: float = setting(0.3, "share of the variations in the test split", gt=0, lt=0.8)
    game_count: int = setting(120, "variations that make tasks, in turn from all tasks", ge=3)
    catalogue_seed: int = setting(0, "seed of the order of tasks and variations", ge=0)
