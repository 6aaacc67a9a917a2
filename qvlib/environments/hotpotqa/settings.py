"""The settings of HotPotQA."""

from __future__ import annotations

from qvlib.base.settings import setting
from qvlib.environments.world import (
    WorldSettings,
    cut_off_value,
    dev_part,
    step_limit,
    test_part,
)


class HotPotQASettings(WorldSettings):
    """The settings of HotPotQA."""

    environment: str = setting("hotpotqa", "the environment by name")
    data_dir: str = setting(
        "", "folder of the official data files; empty = the embedded encyclopaedia"
    )
    max_steps: int = step_limit(7, "actions after which an episode is cut off (paper: 7)")
    timeout_value: float = cut_off_value(-1.0, " (paper's code: -1)")
    dev_share: float = dev_part("groups of questions")
    test_share: float = test_part("groups of questions")
    catalogue_products: int = setting(2400, "articles of the embedded encyclopaedia", ge=200)
    catalogue_seed: int = setting(0, "seed of the embedded encyclopaedia", ge=0)
