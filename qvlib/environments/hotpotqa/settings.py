"""The settings of HotPotQA."""

from __future__ import annotations

from qvlib.base.settings import setting
from qvlib.environments.world import WorldSettings


class HotPotQASettings(WorldSettings):
    """The settings of HotPotQA."""

    environment: str = setting("hotpotqa", "the environment by name")
    data_dir: str = setting(
        "", "folder of the official data files; empty = the embedded encyclopaedia"
    )
    max_steps: int = setting(7, "actions after which an episode is cut off (paper: 7)", ge=1)
    timeout_value: float = setting(
        -1.0,
        "value of a state that is cut off at max_steps (paper's code: -1)",
        decides=("trees", "search"),
        ge=-1,
        le=0,
    )
    dev_share: float = setting(
        0.1, "share of the groups of questions in the dev split", gt=0, lt=0.5
    )
    test_share: float = setting(
        0.3, "share of the groups of questions in the test split", gt=0, lt=0.8
    )
    catalogue_products: int = setting(2400, "articles of the embedded encyclopaedia", ge=200)
    catalogue_seed: int = setting(0, "seed of the embedded encyclopaedia", ge=0)
