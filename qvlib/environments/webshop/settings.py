"""The settings of WebShop."""

from __future__ import annotations

from typing import Literal

from qvlib.base.settings import setting
from qvlib.environments.world import (
    WorldSettings,
    cut_off_value,
    dev_part,
    step_limit,
    test_part,
)


class WebShopSettings(WorldSettings):
    """The settings of WebShop."""

    environment: str = setting("webshop", "the environment by name")
    data_dir: str = setting("", "folder of the official data files; empty = the embedded catalogue")
    max_steps: int = step_limit(10, "actions after which an episode is cut off (paper: 10)")
    timeout_value: float = cut_off_value(-0.5, " (paper's code: -0.5)")
    dev_share: float = dev_part("products")
    test_share: float = test_part("products")
    catalogue_products: int = setting(2400, "products of the embedded catalogue", ge=200)
    catalogue_seed: int = setting(0, "seed of the embedded catalogue", ge=0)
    goals: Literal["synthetic", "human", "all"] = setting("synthetic", "which goals make tasks")
    title_nouns: str = setting(
        "auto",
        "nouns of titles: auto (table beside the data, else spacy), spacy, or a table's path",
    )
    repair_rules: bool = setting(False, "repair the original's bugs that change a reward")
    observation_mode: Literal["text", "text_rich"] = setting(
        "text", "pages as the original's text (parts set apart by [SEP]) or text_rich (marked-up)"
    )
    show_attributes: bool = setting(
        False, "show a button with the attributes of the product on its page"
    )
