"""The null of a gain can reject, and does not where labels say nothing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from qvlib.base.errors import QvlibError
from qvlib.pipeline.params import make
from qvlib.report.numbers.episodes import by_task
from qvlib.report.numbers.gains import arm_rows, gain_rows
from qvlib.report.numbers.metrics_json import difference
from qvlib.report.numbers.null import null, rank_p

COUNTS = dict.fromkeys(("env_steps", "proposals", "tokens", "prompt_tokens", "refused"), 1)


def episodes(q, shuffles, seeds=(0,), tasks=120):
    """Rewards of arms; every arm's mean is 0.3 plus what is given, task by task the same noise."""
    rng = np.random.default_rng(0)
    luck = rng.normal(0, 0.1, tasks)
    rows = []
    for seed in seeds:
        arms = {"sample": 0.0, "greedy": 0.0, "q_n5": q}
        arms |= {f"control_q_n5/{k}": gain for k, gain in enumerate(shuffles)}
        for arm, gain in arms.items():
            for i in range(tasks):
                own = rng.normal(0, 0.02)
                rows.append(
                    {"arm": arm, "seed": seed, "task": f"t{i}", "group": f"g{i // 2}"}
                    | {"reward": 0.3 + gain + luck[i] + own, **COUNTS}
                )
    return pd.DataFrame(rows)


LUCK = [0.08, -0.08, 0.05, -0.05, 0.03, -0.03, 0.01, -0.01]


def test_a_gain_above_all_shuffles_is_rare_by_the_null():
    found = null(by_task(episodes(0.2, LUCK)), 1000)
    assert found["rank_p"] == pytest.approx(1 / 9)
    assert found["shuffles"] == pytest.approx(LUCK, abs=0.01)
    assert found["mean"]["mean"] == pytest.approx(0.2, abs=0.01) and found["mean"]["ci95"][0] > 0.04
    assert "n10" not in found  # not played
    chains = null(by_task(episodes(0.2, LUCK, (0, 1, 2))), 1000)
    assert chains["rank_p"] == pytest.approx(1 / 729) and len(chains["shuffles"]) == 24


def test_a_gain_that_shuffles_have_too_is_not():
    assert null(by_task(episodes(0.045, LUCK)), 1000)["rank_p"] == pytest.approx(3 / 9)
    worst = null(by_task(episodes(-0.2, LUCK, (0, 1))), 1000)
    assert worst["rank_p"] == 1.0 and worst["mean"]["ci95"][1] < 0


def test_the_interval_of_a_control_covers_the_luck_of_its_coins():
    rows = by_task(episodes(0.2, LUCK))
    alike = by_task(episodes(0.2, [0.0] * 8))

    def width(table, arm, what):
        row = table.set_index("arm").loc[arm]
        return row["high" if what == "low" else "reward_high"] - row[what]

    for table, what in (
        (lambda r: gain_rows(r, 1000), "low"),
        (lambda r: arm_rows(r, 1000), "reward_low"),
    ):
        wide, narrow = (width(table(r), "control_q_n5", what) for r in (rows, alike))
        assert wide > narrow + 0.03
    assert arm_rows(rows, 1000).set_index("arm").loc["control_q_n5", "shuffles"] == 8


def test_a_model_like_its_shuffles_is_rarely_above_them():
    """Of one chain Q's own training has the luck that shuffles have: 2.5 % lie above by chance."""
    rng = np.random.default_rng(2)
    above = 0
    for _ in range(120):
        models = rng.normal(0, 0.05, 9)
        rows = by_task(episodes(models[0], list(models[1:]), tasks=20))
        above += null(rows, 100)["mean"]["ci95"][0] > 0
    assert above <= 8


def test_one_shuffle_has_no_interval():
    found = null(by_task(episodes(0.2, [0.0])), 100)
    assert "mean" not in found and found["rank_p"] == 0.5


def test_each_shuffle_is_set_against_its_own_chain():
    rows = pd.concat(
        [
            episodes(0.0, [0.1, 0.15]),
            episodes(0.4, [-0.1, -0.1]).assign(seed=1),
        ]
    )
    found = null(by_task(rows), 100)
    assert found["found"] == pytest.approx([0.0, 0.4], abs=0.02)


def test_ranks_are_counted_by_hand():
    assert rank_p([1.0], [[0.0, 2.0]]) == pytest.approx(2 / 3)
    assert rank_p([1.0, 1.0], [[0.0], [0.0]]) == pytest.approx(1 / 4)
    assert rank_p([1.0, 0.0], [[0.0], [1.0]]) == pytest.approx(3 / 4)  # 1 + 0, 1 + 1, 0 + 1
    assert rank_p([0.5], [[0.5, 0.5]]) == 1.0  # ties are no evidence


def test_many_chains_are_drawn_from():
    rng = np.random.default_rng(1)
    chains = [list(rng.normal(0, 1, 20)) for _ in range(6)]
    assert rank_p([5.0] * 6, chains) < 1e-4
    assert 0.2 < rank_p([0.0] * 6, chains) < 0.8


def test_a_difference_of_an_arm_that_was_not_played_is_none():
    rows = by_task(episodes(0.2, LUCK))
    assert difference(rows, "q_n5", "foreign_q_n5", 100) == {}
    assert difference(rows, "q_n5", "sample", 100)["mean"] == pytest.approx(0.2, abs=0.01)


def test_the_primary_comparison_names_arms():
    assert (
        make({"primary": "q_n10 minus likely_n10"}).evaluation.primary == "q_n10 minus likely_n10"
    )
    with pytest.raises(QvlibError, match="'primary': there is no arm 'foreign'"):
        make({"primary": "q_n5 minus foreign"})
    with pytest.raises(QvlibError, match="did you mean 'q_n5'"):
        make({"primary": "q_n55 minus sample"})
    with pytest.raises(QvlibError, match="'primary'"):
        make({"primary": "q_n5 - sample"})
    with pytest.raises(QvlibError, match="control_q_n5 has several shuffles"):
        make({"primary": "q_n5 minus control_q_n5"})


def test_precision_is_chosen_by_the_agent():
    assert make({}).dtype == "float64"
    assert make({"agent": "smollm2"}).dtype == "float32"
    assert make({"q_base": "smollm2"}).dtype == "float32"
    assert make({"dtype": "bfloat16"}).dtype == "bfloat16"
