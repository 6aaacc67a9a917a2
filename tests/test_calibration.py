"""Whether scores are what they are meant as: against outcomes, and within a state."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from qvlib.pipeline.followed import steps
from qvlib.pipeline.params import make
from qvlib.pipeline.scored import drawn
from qvlib.report import figures, scores, sentences
from qvlib.report.figures.kit import png
from qvlib.report.numbers import calibration as numbers
from qvlib.report.numbers.calibration import calibration, meant_as, within_states

# -- what is scored --------------------------------------------------------------------------------


def test_each_action_of_an_episode_has_what_followed():
    told = steps({"actions": ["a", "b", "c"], "reward": 0.5})
    assert [row["path"] for row in told] == [[], ["a"], ["a", "b"]]
    assert [row["left"] for row in told] == [2, 1, 0]
    assert {row["reward"] for row in told} == {0.5} and steps({"actions": [], "reward": 0.0}) == []


def test_the_same_actions_are_drawn_for_every_estimator():
    episodes = [(f"t{i}", steps({"actions": ["a", "b"], "reward": 1.0})) for i in range(50)]
    one, again = (drawn(iter(episodes), 30, 7, "followed actions") for _ in range(2))
    assert one == again and sum(map(len, one.values())) == 30
    assert one != drawn(iter(episodes), 30, 7)


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"estimator": "step_dpo"}, None),
        ({"estimator": "pqm"}, None),
        ({"estimator": "bradley_terry"}, None),
        ({"estimator": "agentrm"}, "reward"),
        ({"estimator": "agentrm", "target": "advantage"}, None),
        ({"estimator": "oreo"}, "reward"),
        ({"estimator": "tvm"}, "success"),
        ({"estimator": "llm_value", "q_base": "smollm2"}, "success"),
    ],
)
def test_a_score_is_compared_in_its_own_unit(given, what):
    assert meant_as(make(given)) == what


@pytest.mark.parametrize(
    ("given", "outcomes"),
    [
        ({"estimator": "agentrm", "discount": 0.5}, [0.2, 0.4, 1.0]),
        ({"estimator": "tvm", "success_reward": 0.8}, [1.0, 1.0, 1.0]),
        ({"estimator": "tvm", "success_reward": 0.9}, [0.0, 0.0, 1.0]),
        ({"estimator": "llm_value", "q_base": "smollm2"}, [0.0, 0.0, 1.0]),
    ],
)
def test_outcomes_are_discounted_rewards_or_successes(monkeypatch, given, outcomes):
    table = pd.DataFrame({"reward": [0.8, 0.8, 1.0], "left": [2, 1, 0], "score": [0.1, 0.2, 0.3]})
    stage = type("Stage", (), {"table": lambda self, name: table})
    monkeypatch.setattr(numbers, "read_stage", lambda chain, name: stage())
    params = make({**given, "seeds": 2})
    found = numbers.followed(params, meant_as(params))
    assert found["outcome"].tolist() == pytest.approx(outcomes * 2)
    assert found["seed"].tolist() == [0, 0, 0, 1, 1, 1]


# -- numbers ---------------------------------------------------------------------------------------


def judged(score, noise=0.0):
    """Actions of 60 tasks, five each, with outcomes in [0, 1]; ``score`` of an outcome."""
    rng = np.random.default_rng(0)
    outcomes = rng.random(300)
    tasks = [f"t{i // 5}" for i in range(300)]
    scored = [float(score(v)) for v in outcomes] + rng.normal(0, noise, 300)
    return pd.DataFrame(
        {"seed": 0, "task": tasks, "group": tasks, "score": scored, "outcome": outcomes}
    )


def test_a_value_is_calibrated_and_what_is_none_is_told():
    same = calibration(judged(lambda v: v), 200)
    assert same["bias"]["mean"] == 0 and same["error"] == pytest.approx(0)
    assert same["slope"]["mean"] == pytest.approx(1) and same["correlation"] == pytest.approx(1)
    assert sum(b["count"] for b in same["bins"]) == same["actions"] == 300
    double = calibration(judged(lambda v: 2 * v + 0.5), 200)
    assert double["slope"]["mean"] == pytest.approx(0.5)
    assert double["slope"]["ci95"] == pytest.approx([0.5, 0.5])
    mean = judged(lambda v: v)["outcome"].mean()
    assert double["bias"]["mean"] == pytest.approx(mean + 0.5)
    assert double["error"] == pytest.approx(mean + 0.5)
    wrong = calibration(judged(lambda v: 1 - v), 200)
    assert wrong["slope"]["ci95"][1] < 0 and wrong["correlation"] == pytest.approx(-1)
    assert calibration(judged(lambda v: 0.3), 200) == {}
    assert calibration(judged(lambda v: v)[:10], 200) == {}


def test_the_slope_is_that_of_least_squares_and_noise_widens_its_interval():
    noisy = judged(lambda v: v, noise=0.3)
    told = calibration(noisy, 2000)
    slope = np.polyfit(noisy["score"], noisy["outcome"], 1)[0]
    assert told["slope"]["mean"] == pytest.approx(slope)
    low, high = told["slope"]["ci95"]
    assert low < slope < high and high - low > 0.05


def coins(shift):
    """1,500 episodes that succeed as often as their score, less a shift, says."""
    rng = np.random.default_rng(3)
    chance = rng.uniform(0.1, 0.9, 1500)
    tasks = [f"t{i}" for i in range(1500)]
    outcomes = (rng.random(1500) < chance).astype(float)
    return pd.DataFrame(
        {"seed": 0, "task": tasks, "group": tasks, "score": chance + shift, "outcome": outcomes}
    )


def test_a_score_without_error_has_about_that_of_chance():
    """The error of a mean of 150 coins, not 0; a shift of all scores stands out of it."""
    right, shifted = calibration(coins(0.0), 200), calibration(coins(0.2), 200)
    assert 0.5 < right["error"] / right["error_by_chance"] < 2
    assert shifted["error"] == pytest.approx(0.2, abs=0.05)
    assert shifted["error_by_chance"] == pytest.approx(right["error_by_chance"])
    # a mean of 150 coins of one half deviates by sqrt(1/4/150), in absolute value sqrt(2/pi) of it
    expected = np.sqrt(0.25 / 150 * 2 / np.pi)
    assert 0.6 * expected < right["error_by_chance"] < 1.1 * expected


def test_an_interval_is_over_tasks_within_what_outcomes_can_be_or_none():
    one_task = judged(lambda v: v).assign(group="g", task="t")
    told = calibration(one_task, 200)
    assert all(row["ci95"] is None for row in told["bins"]) and told["error_by_chance"] is None
    few = coins(0.0)[:40]
    for row in calibration(few, 200)["bins"]:
        assert row["ci95"] is None or 0 <= row["ci95"][0] <= row["outcome"] <= row["ci95"][1] <= 1
    # Five rows of a task that agree are one: the interval is wider than of as many tasks.
    alike = coins(0.0)[:60].loc[lambda t: t.index.repeat(5)]
    apart = alike.assign(group=[f"g{i}" for i in range(300)])
    wide, narrow = (calibration(table, 200)["bins"][4]["ci95"] for table in (alike, apart))
    assert wide[1] - wide[0] > 1.5 * (narrow[1] - narrow[0])


def pairs_of(own, margin, tasks=10):
    count = len(own)
    names = [f"t{i % tasks}" for i in range(count)]
    return pd.DataFrame({"seed": 0, "task": names, "group": names, "own": own, "margin": margin})


def test_pairs_tell_an_order_and_a_slope_within_a_state():
    told = within_states(pairs_of([2.0, 2.0, -1.0, 0.0] * 10, [0.4, 0.2, 0.1, 0.3] * 10), 200)
    assert told["rank"]["mean"] == pytest.approx((2 - 1) / 4)  # two right, one wrong, one tie
    assert told["slope"]["mean"] == pytest.approx((0.8 + 0.4 - 0.1) / (4 + 4 + 1))
    assert told["pairs"] == 40 and told["tasks"] == 10
    # Turned so that the score prefers the first of both.
    own = [1.0, -2.0, 3.0, -4.0, 5.0, -6.0]
    bins = within_states(pairs_of(own * 10, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6] * 10), 200)["bins"]
    assert [row["score"] for row in bins] == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert [row["outcome"] for row in bins] == pytest.approx([0.1, -0.2, 0.3, -0.4, 0.5, -0.6])
    halved = within_states(pairs_of([0.5, 1.0] * 20, [1.0, 2.0] * 20), 200)
    assert halved["slope"]["mean"] == pytest.approx(2.0) and halved["rank"]["mean"] == 1.0
    wrong = within_states(pairs_of([-0.5, -1.0] * 20, [1.0, 2.0] * 20), 200)
    assert wrong["rank"]["ci95"] == [-1.0, -1.0] and wrong["slope"]["mean"] == pytest.approx(-2.0)


def test_few_pairs_equal_scores_and_what_is_not_known_tell_no_order():
    assert within_states(pairs_of([1.0] * 10, [0.1] * 10), 200) == {}
    assert within_states(pairs_of([0.0] * 30, [0.1] * 30), 200) == {}
    assert within_states(pairs_of([1.0] * 29 + [None], [0.1] * 30), 200) == {}
    assert within_states(pd.DataFrame(), 200) == {}


# -- sentences, tables, the picture ----------------------------------------------------------------


def about(mean, half=0.02):
    return {"mean": mean, "ci95": [mean - half, mean + half]}


def value(bias=0.0, slope=1.0, outcome="reward", chance=0.01):
    bins = [{"score": s, "outcome": s / 2, "ci95": [0.0, s], "count": 9} for s in (0.1, 0.4, 1.2)]
    return {
        "outcome": outcome,
        **({"success_reward": 1.0} if outcome == "success" else {}),
        "actions": 1000,
        "tasks": 500,
        "bias": about(bias),
        "slope": about(slope),
        "error": 0.07,
        "error_by_chance": chance,
        "bins": bins,
    }


def order(rank=0.2):
    bins = [{"score": 5.0, "outcome": -0.1, "ci95": None, "count": 9}]
    return {"pairs": 2000, "tasks": 400, "rank": about(rank), "slope": about(0.3), "bins": bins}


def entry(calibration=None, within=None, unit="nats"):
    return {"calibration": calibration, "within_states": within, "unit": unit}


def report(**entries):
    return {"run": "made up", "estimators": entries}


@pytest.mark.parametrize(
    ("bias", "slope", "words"),
    [
        (0.0, 1.0, ("not shown to be too high or too low", "as outcomes do")),
        (0.3, 0.5, ("are too high", "differ by more than outcomes")),
        (-0.3, 2.0, ("are too low", "differ by less than outcomes")),
        (0.0, 0.0, ("are not shown to follow outcomes at all",)),
        (0.0, -0.5, ("the wrong way round",)),
    ],
)
def test_calibration_is_told_by_its_intervals(bias, slope, words):
    one = value(bias, slope)
    said = sentences.calibrated(report(one=entry(one, unit="reward"), two=entry(None)))
    assert all(word in said for word in words) and "two" not in said
    assert "1,000 actions that it sampled on 500 test tasks" in said


def test_estimators_of_one_verdict_are_told_together():
    said = sentences.calibrated(
        report(
            one=entry(value(0.3), order()),
            two=entry(value(0.3), order(-0.2)),
            three=entry(None, order(0.01)),
        )
    )
    assert "scores of `one` and `two` are too high on the whole." in said
    assert "scores of `one` order siblings as the search did, more often than not; " in said
    assert "scores of `two` order siblings the other way round" in said
    assert "scores of `three` are not shown to order siblings one way or the other." in said


def test_what_no_number_tests_is_not_told():
    said = sentences.calibrated(report(one=entry()))
    assert said.splitlines() == [
        "- No score of these is a value or a probability that outcomes could contradict.",
        "- Too few pairs of siblings tell how they are ordered.",
    ]
    assert sentences.calibrated({}) == said


def test_tables_have_a_row_an_estimator_and_leave_out_what_is_not_known():
    metrics = report(
        one=entry(value(chance=None), order(), "reward"), two=entry(None, order()), three=entry()
    )
    table = scores.calibration(metrics).set_index("estimator")
    assert table.loc["one", "error"] == 0.07 and table.loc["two", "rank"] == 0.2
    assert table.loc["two", ["bias", "error"]].isna().all() and table.loc["two", "outcome"] == ""
    shown = scores.display_calibration(metrics).set_index("estimator")
    assert shown.loc["one", "calibration error"] == "0.070"
    assert list(shown["meant as"]) == ["reward", "order of siblings", "order of siblings"]
    assert not shown.loc["three"].drop("meant as").any()
    bins = scores.bins(metrics)
    assert len(bins) == 3 + 1 + 1 and bins["low"].isna().sum() == 2
    for of in (scores.calibration, scores.display_calibration, scores.bins):
        assert of(report()).empty


def test_a_panel_an_estimator_and_one_unit_has_one_scale():
    wide = value()
    wide["bins"] = [*wide["bins"], {"score": 3.0, "outcome": 0.9, "ci95": [0.8, 1.0], "count": 9}]
    metrics = report(
        order_one=entry(None, order()),
        one=entry(value(), order(), "reward"),
        two=entry(wide, order(), "reward"),
        three=entry(value(outcome="success"), None, "probability"),
        few=entry(None, None, ""),
    )
    figure = figures.calibrations(metrics)
    shown = {a.get_title(loc="left"): a for a in figure.axes if a.get_visible()}
    assert list(shown) == ["one", "two", "three", "order_one", "few"]  # by unit
    assert shown["one"].get_xlim() == shown["two"].get_xlim() != shown["three"].get_xlim()
    assert shown["one"].get_ylim() == shown["two"].get_ylim()

    def dashed(axes):
        return [line for line in axes.lines if line.get_linestyle() == "--"]

    for name, axes in shown.items():
        assert axes.get_xlabel() and axes.get_ylabel()
        assert bool(dashed(axes)) == (name in ("one", "two", "three"))
    (diagonal,) = dashed(shown["one"])
    assert list(diagonal.get_xdata()) == list(diagonal.get_ydata())
    assert "error 0.070\n(0.010 by chance)" in shown["one"].texts[0].get_text()
    assert "+0.20 [+0.18, +0.22]" in shown["order_one"].texts[0].get_text()
    assert "too few" in shown["few"].texts[0].get_text()
    assert shown["order_one"].get_xlabel() == "difference of scores (nats)"
    assert png(figure).startswith(b"\x89PNG") and png(figures.calibrations(report()))


@pytest.mark.parametrize(
    ("estimator", "more", "left"),
    [
        ("agentrm", {"discount": 0.8}, 0.8),
        ("qlass", {"backup_discount": 0.7, "discount": 0.8}, 0.7),
        ("archer", {"td_discount": 0.6, "discount": 0.8}, 0.6),
        ("oreo", {"discount": 0.8}, 1.0),
    ],
)
def test_what_came_is_discounted_as_the_score_is(estimator, more, left, monkeypatch):
    """Else a score would seem too high or too low by the difference of two discount factors."""
    params = make({"estimator": estimator, **more})
    actions = pd.DataFrame({"task": ["a", "a"], "reward": [0.5, 0.5], "left": [0, 2]})
    known = SimpleNamespace(table=lambda name: actions)
    monkeypatch.setattr(numbers, "read_stage", lambda *asked: known)
    told = numbers.followed(params, numbers.REWARD)
    assert list(told["outcome"]) == pytest.approx([0.5, 0.5 * left**2])
