"""The settings of TextWorld, which generates games by them."""

from __future__ import annotations

from typing import Literal

from qvlib.base.settings import setting
from qvlib.environments.world import WorldSettings


class TextWorldSettings(WorldSettings):
    """The settings of TextWorld."""

    environment: str = setting("textworld", "the environment by name")
    data_dir: str = setting("", "folder of games (*.z8 with *.json); empty = generated games")
    max_steps: int = setting(
        10,
        "commands after which a game is cut off; generated ones are won in at most nine",
        ge=1,
    )
    dev_share: float = setting(0.1, "share of the games in the dev split", gt=0, lt=0.5)
    test_share: float = setting(0.3, "share of the games in the test split", gt=0, lt=0.8)
    games: Literal["cooking", "treasure_hunter", "coin_collector"] = setting(
        "cooking", "what generated games are about"
    )
    game_count: int = setting(120, "generated games, 1 to 3 s each", ge=3)
    catalogue_seed: int = setting(0, "seed of the generated games", ge=0)
