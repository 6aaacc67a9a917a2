"""The settings of TextWorld, which generates games by them."""

from __future__ import annotations

from typing import Literal

from qvlib.base.settings import setting
from qvlib.environments.world import WorldSettings, dev_part, step_limit, test_part


class TextWorldSettings(WorldSettings):
    """The settings of TextWorld."""

    environment: str = setting("textworld", "the environment by name")
    data_dir: str = setting("", "folder of games (*.z8 with *.json); empty = generated games")
    max_steps: int = step_limit(
        10, "commands after which a game is cut off; generated ones are won in at most nine"
    )
    dev_share: float = dev_part("games")
    test_share: float = test_part("games")
    games: Literal["cooking", "treasure_hunter", "coin_collector"] = setting(
        "cooking", "what generated games are about"
    )
    game_count: int = setting(120, "generated games, 1 to 3 s each", ge=3)
    catalogue_seed: int = setting(0, "seed of the generated games", ge=0)
