"""Preferences against regression: effects that are known, and words that adverse numbers get."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from qvlib.base.seeding import generator
from qvlib.report import figures, published, regression, tables
from qvlib.report.regression import (
    ADVANTAGE,
    AS_IT_IS,
    BRADLEY_TERRY,
    BY_REWARD,
    METHODS,
    PARTS,
    REBEL,
    STEP_DPO,
    TUNED,
    VALUE,
    WHOLE,
)
from qvlib.report.sentences import two_by_two as said

ESTIMATOR_OF = {
    STEP_DPO: ("step_dpo", {}),
    REBEL: ("rebel", {}),
    BRADLEY_TERRY: ("bradley_terry", {}),
    ADVANTAGE: ("agentrm", {"target": "advantage"}),
    VALUE: ("agentrm", {"target": "value"}),
}


@dataclass(frozen=True)
class Settings:
    """What a method is known by."""

    target: str = ""

    def names(self):
        return ("fit_lr", "dpo_lr", "head_init", "target")


@dataclass(frozen=True, eq=False)
class FakeCell:
    """A cell of a grid that earned ``reward`` on average."""

    axis: str
    method: str
    reward: float
    change: dict[str, Any] = field(default_factory=dict)
    label: str = "as it is"

    @property
    def params(self):
        name, own = ESTIMATOR_OF[self.method]
        q_model = SimpleNamespace(estimator=name)
        return SimpleNamespace(q_model=q_model, estimator=Settings(**own))


def earned(cell):
    """Rewards of three chains on 40 tasks of 20 groups, that average to the cell's."""
    index = pd.MultiIndex.from_product([range(3), range(20), range(2)])
    index = index.set_names(["chain", "group", "task"])
    values = 0.02 * generator(0, cell.axis, cell.method).normal(size=len(index))
    return pd.DataFrame({"q": cell.reward + values - values.mean()}, index=index)


@pytest.fixture(autouse=True)
def _earned(monkeypatch):
    monkeypatch.setattr(regression, "rewards", earned)


def table(cells, accuracy=0.6, failed=()):
    return pd.DataFrame(
        [
            {
                "axis": cell.axis,
                "choice": cell.label,
                "reward": cell.reward,
                "held_out_accuracy": accuracy if np.isscalar(accuracy) else accuracy[i],
                "failed": "no memory" if i in failed else "",
            }
            for i, cell in enumerate(cells)
        ]
    )


def two_by_two(axis=AS_IT_IS, head=0.0, regress=0.0, value=0.0, **change):
    """Five cells: what is lost by a head, by regression, by the value as target."""
    rewards = {
        STEP_DPO: 0.6,
        REBEL: 0.6 - regress,
        BRADLEY_TERRY: 0.6 - head,
        ADVANTAGE: 0.6 - head - regress,
    }
    rewards[VALUE] = rewards[ADVANTAGE] - value
    first = "the run" if axis == AS_IT_IS else axis
    return [
        FakeCell(first if name == STEP_DPO else axis, name, reward, change)
        for name, reward in rewards.items()
    ]


def effects(cells, **how):
    found = regression.conditions(cells, table(cells, **how))
    return regression.effects(found, 200)


def means(frame, condition=AS_IT_IS, column="mean"):
    of = frame[frame["condition"] == condition].set_index("effect")[column]
    return of.to_dict()


# -- numbers ----------------------------------------------------------------------------------


def test_the_effects_are_those_that_the_rewards_were_made_of():
    found = means(effects(two_by_two(head=0.1, regress=0.04, value=0.03)))
    assert found["parametrisation"] == pytest.approx(0.1)
    assert found["loss"] == pytest.approx(0.04)
    assert found["target"] == pytest.approx(0.03)
    assert found["interaction"] == pytest.approx(0, abs=1e-9)
    assert found["parametrisation minus loss"] == pytest.approx(0.06)
    assert found[WHOLE] == pytest.approx(0.17)


@pytest.mark.parametrize("seed", range(5))
def test_three_parts_add_up_to_the_whole_whatever_the_rewards(seed):
    rng = np.random.default_rng(seed)
    cells = [FakeCell("the run", STEP_DPO, rng.random())]
    cells += [FakeCell(AS_IT_IS, name, rng.random()) for name in (*METHODS,)[1:]]
    found = means(effects(cells))
    assert sum(found[part] for part in PARTS) == pytest.approx(found[WHOLE])
    assert found["parametrisation"] - found["loss"] == pytest.approx(
        found["parametrisation minus loss"]
    )


def test_intervals_are_over_chains_and_hold_the_mean():
    frame = effects(two_by_two(head=0.1))
    assert ((frame["mean_low"] < frame["mean"]) & (frame["mean"] < frame["mean_high"])).all()


def test_a_condition_is_compared_with_the_methods_as_they_are():
    cells = [
        *two_by_two(head=0.1, regress=0.04),
        *two_by_two("opaque actions", head=0.02, regress=0.04, description_words=0),
    ]
    frame = effects(cells)
    changes = means(frame, "opaque actions", "change")
    assert changes["parametrisation"] == pytest.approx(-0.08)
    assert changes["loss"] == pytest.approx(0, abs=1e-9)
    assert changes[WHOLE] == pytest.approx(-0.08)
    assert pd.isna(frame[frame["condition"] == AS_IT_IS]["change"]).all()


def test_rates_are_chosen_by_held_out_pairs_and_beside_it_by_reward():
    cells = two_by_two(head=0.1)
    rates = [
        FakeCell(TUNED, BRADLEY_TERRY, 0.9, {"fit_lr": 1e-3}, "fit_lr 0.001"),
        FakeCell(TUNED, BRADLEY_TERRY, 0.55, {"fit_lr": 1e-4}, "fit_lr 0.0001"),
        FakeCell(TUNED, STEP_DPO, 0.3, {"dpo_lr": 1e-3}, "dpo_lr 0.001"),
    ]
    accuracy = [0.6] * 5 + [0.5, 0.7, None]
    found = regression.conditions([*cells, *rates], table([*cells, *rates], accuracy))
    chosen = {name: trial.cell.reward for name, trial in found[TUNED].items()}
    assert chosen == {
        STEP_DPO: 0.6,
        REBEL: 0.6,
        BRADLEY_TERRY: 0.55,
        ADVANTAGE: 0.5,
        VALUE: 0.5,
    }
    by_reward = {name: trial.cell.reward for name, trial in found[BY_REWARD].items()}
    assert by_reward == {**chosen, BRADLEY_TERRY: 0.9}


def test_methods_that_an_axis_of_estimators_leaves_out_stay_as_they_are():
    heads = [
        FakeCell("random heads", name, 0.2, {"estimator": "x", "head_init": "random"})
        for name in (BRADLEY_TERRY, ADVANTAGE, VALUE)
    ]
    cells = [*two_by_two(), *heads]
    found = regression.conditions(cells, table(cells))["random heads"]
    assert [trial.cell.reward for trial in found.values()] == [0.6, 0.6, 0.2, 0.2, 0.2]
    # One that failed is not taken for one that stays as it is.
    without = regression.conditions(cells, table(cells, failed=[6]))["random heads"]
    assert ADVANTAGE not in without and STEP_DPO in without
    # Nor is one where the axis changes what all methods learn from.
    trees = [FakeCell("more", n, 0.2, {"train_tasks": 250}) for n in (BRADLEY_TERRY, VALUE)]
    cells = [*two_by_two(), *trees]
    assert set(regression.conditions(cells, table(cells))["more"]) == {BRADLEY_TERRY, VALUE}


def test_what_failed_or_was_not_tried_leaves_its_effects_out():
    frame = effects(two_by_two(), failed=[2])
    assert set(frame["effect"]) == {WHOLE, "target"}
    only = [FakeCell("the run", STEP_DPO, 0.6), FakeCell("beta", STEP_DPO, 0.5, {"beta": 0.3})]
    assert regression.conditions(only, table(only)) == {}
    assert regression.effects({}, 100).empty


def test_tables_and_figure_can_be_drawn():
    cells = [*two_by_two(head=0.1), *two_by_two("opaque actions", description_words=0)]
    found = regression.conditions(cells, table(cells))
    frame = regression.methods(found)
    frame = frame.assign(**{f"{n}{e}": 0.1 for n in ("reward", "gain") for e in ("_low", "_high")})
    shown = regression.display_methods(frame.assign(gain=0.1))
    assert len(shown) == 10 and set(shown["parametrisation"]) == {"log-ratio", "value head"}
    assert shown["held-out pairs ordered"].iloc[0] == "60.0%"
    told = regression.effects(found, 100)
    tables.markdown(shown), tables.markdown(regression.display_effects(told))
    assert len(figures.png(figures.effects(told))) > 1000


# -- words ------------------------------------------------------------------------------------


def row(effect, mean, change=None, condition=AS_IT_IS, half=0.04):
    told = {"condition": condition, "effect": effect, "mean": mean}
    told |= {"mean_low": mean - half, "mean_high": mean + half}
    if change is not None:
        told |= {"change": change, "change_low": change - half, "change_high": change + half}
    return told


def rows(whole, parametrisation, loss, target, condition=AS_IT_IS, interaction=0.0, **changes):
    values = {
        WHOLE: whole,
        "parametrisation": parametrisation,
        "loss": loss,
        "target": target,
        "parametrisation minus loss": parametrisation - loss,
        "interaction": interaction,
    }
    moved = changes.get("changes", {})
    return [
        row(name, value, None if condition == AS_IT_IS else moved.get(name, 0.0), condition)
        for name, value in values.items()
    ]


AHEAD = rows(0.15, 0.1, 0.05, 0.0)


def test_the_published_finding_is_told_as_it_was_read():
    text = said.opposite(published.figures()["heads"])
    assert "a log-ratio 0.547, a value head 0.615" in text and "head +0.068" in text


@pytest.mark.parametrize(
    "whole, words",
    [
        (0.15, "significantly above 0; step DPO is ahead here, the opposite of what AgentRM"),
        (-0.15, "significantly below 0; the value head is ahead here, as AgentRM reports"),
        (0.02, "not significant (95 % interval contains 0); neither is shown to be ahead"),
    ],
)
def test_who_is_ahead_is_what_the_interval_says(whole, words):
    assert words in said.whole(rows(whole, 0, 0, 0))
    tuned = said.whole([*AHEAD, *rows(whole, 0, 0, 0, TUNED)])
    assert tuned.count("\n") == 1 and words in tuned.splitlines()[1]


def test_the_conclusion_names_shown_causes_alone():
    text = said.conclusion(AHEAD)
    assert text.startswith("**Step DPO is ahead here**")
    assert "Shown as a cause: a log-ratio instead of a head (+0.100" in text
    assert "preferences instead of regression (+0.050" in text and "the advantage" not in text
    vague = said.conclusion(rows(0.09, 0.03, 0.03, 0.03))
    assert "Neither parametrisation, loss nor target alone is shown" in vague


def test_an_adverse_outcome_is_told_as_such():
    behind = said.conclusion(rows(-0.15, -0.2, 0.06, 0.0))
    assert behind.startswith("**AgentRM is ahead here**")
    assert "Shown as a cause: a log-ratio instead of a head (-0.200" in behind
    assert "Against it works preferences instead of regression (+0.060" in behind
    nothing = said.conclusion(rows(0.01, 0.3, 0.3, 0.3))
    assert "No difference is shown" in nothing and "cause" not in nothing
    assert "not run whole" in said.conclusion([])
    # What holds as the methods are does not hold with each one's best rate: that judges.
    tuned = said.conclusion([*AHEAD, *rows(0.0, 0, 0, 0, TUNED)])
    assert "No difference is shown" in tuned
    # Nor is it hidden that another way of choosing the rates says otherwise.
    for reward, other in ((0.0, "not significant"), (-0.15, "significantly below"), (0.15, "")):
        text = said.conclusion([*AHEAD, *rows(reward, 0, 0, 0, BY_REWARD)])
        words = "**With rates chosen by reward it is not so**"
        assert (words in text) == bool(other) and other in text


@pytest.mark.parametrize(
    "change, words",
    [
        (-0.1, "moved towards AgentRM by `opaque actions`"),
        (0.1, "moved towards step DPO by `opaque actions`"),
        (0.01, "not shown to be moved by `opaque actions`"),
    ],
)
def test_a_condition_is_told_by_which_way_it_moves_the_difference(change, words):
    more = rows(0.2, 0, 0, 0, "opaque actions", changes={WHOLE: change})
    assert words in said.conclusion([*AHEAD, *more])
    text = said.crossed([*AHEAD, *more], "opaque actions")
    verdict = {-0.1: "significantly below 0", 0.1: "significantly above 0", 0.01: "not significant"}
    assert f"it changes by {change:+.3f}" in text and verdict[change] in text.splitlines()[1]
    assert "Of none of its parts a change is shown" in text
    part = rows(0.2, 0, 0, 0, "opaque actions", changes={"loss": -0.1})
    assert "these change: loss -0.100" in said.crossed([*AHEAD, *part], "opaque actions")
    assert "Not all methods were tried" in said.crossed(AHEAD, "deeper pairs")


def test_the_conclusion_tells_what_a_condition_moves_and_where_no_difference_is_left():
    gone = rows(0.01, 0, 0, 0, "opaque actions")
    assert "Under `opaque actions` (+0.010" in said.conclusion([*AHEAD, *gone])
    assert "by itself no difference is shown" in said.conclusion([*AHEAD, *gone])
    there = rows(0.2, 0.2, 0, 0, "deeper pairs", changes={"loss": -0.1, "target": 0.01})
    text = said.conclusion([*AHEAD, *there])
    assert "Of its parts, `deeper pairs` moves the loss (-0.100" in text
    assert "Under" not in text and "target (" not in text


def test_what_failed_is_listed_and_nothing_of_it_is_alive():
    rows = [{"axis": "a", "choice": "b", "failed": "<b>no</b> memory"}, {"failed": ""}]
    text = said.failed(rows)
    assert text.startswith("Failed:") and "<b>" not in text and text.count("\n- ") == 1
    assert said.failed(rows[1:]) == "No cell failed."


def test_which_part_is_larger_is_said_only_where_it_is_shown():
    assert "which of the two is worth more is not shown" in said.parts(rows(0.1, 0.05, 0.04, 0))
    assert "the parametrisation is worth more than the loss" in said.parts(AHEAD)
    assert "the loss is worth more than the parametrisation" in said.parts(rows(0.1, 0, 0.1, 0))
    assert "that one depends on the other is not shown" in said.parts(AHEAD)
    mixed = said.parts(rows(0.1, 0.1, 0, 0, interaction=-0.1))
    assert "preferences are worth less with a log-ratio than with a head" in mixed
    assert "cannot be taken apart" in said.parts(AHEAD[:2])
