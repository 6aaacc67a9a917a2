"""From episodes to metrics: known data in, known numbers out."""

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from qvlib import pipeline
from qvlib.base.errors import QvlibError
from qvlib.pipeline.context import Context
from qvlib.pipeline.params import make
from qvlib.report import formats, numbers, sentences, tables
from qvlib.report.numbers.against import against, comparable, reads

REWARDS = {
    "sample": 0.2,
    "greedy": 0.3,
    "random_n5": 0.2,
    "likely_n5": 0.25,
    "likely_n10": 0.25,
    "demonstrator": 0.45,
    "script": 0.35,
    "q_n5": 0.5,
    "q_n10": 0.6,
    "foreign_q_n5": 0.4,
    "foreign_q_n10": 0.45,
    "kind_only_n5": 0.35,
    "kind_only_n10": 0.35,
    "within_kind_n5": 0.3,
    "within_kind_n10": 0.3,
    "oracle_n5": 0.7,
    "oracle_n10": 0.75,
    "tuned_policy": 0.4,
    "search": 0.8,
    "other_agent_sample": 0.4,
    "other_agent_q_n5": 0.5,
    "other_agent_foreign_q_n5": 0.45,
    "control_q_n5/0": 0.1,
    "control_q_n5/1": 0.3,
    "control_q_n10/0": 0.2,
    "control_q_n10/1": 0.2,
}
ARMS = {
    "sample",
    "greedy",
    "random_n5",
    "likely_n5",
    "likely_n10",
    "demonstrator",
    "script",
    "q_n5",
    "q_n10",
    *(
        f"{name}_n{n}"
        for name in ("foreign_q", "kind_only", "within_kind", "oracle")
        for n in (5, 10)
    ),
    "tuned_policy",
    "search",
    "other_agent_q_n5",
    "other_agent_foreign_q_n5",
    "control_q_n5",
    "control_q_n10",
    "other_agent_sample",
}


SCORED = pd.DataFrame(
    [
        {"task": f"t{i % 10:02}", "chosen_kind": "buy", "rejected_kind": "option"}
        | {"own": 1.0 if i % 4 else -1.0, "foreign": 0.0, "log_pi": None}
        for i in range(40)
    ]
)


def episodes(rewards=REWARDS, tasks=20):
    """Tasks two a product.

    Every reward is the arm's mean plus a task's own part in [-0.1, 0.1], the first a success under
    search.
    """
    rows = []
    for arm, mean in rewards.items():
        for t in range(tasks):
            reward = 1.0 if (arm, t) == ("search", 0) else mean + (0.1 if t % 2 else -0.1)
            rows.append(
                {
                    "arm": arm,
                    "task": f"t{t:02}",
                    "group": f"p{t // 2}",
                    "reward": reward,
                    "env_steps": 4,
                    "proposals": 5,
                    "tokens": 10,
                    "prompt_tokens": 100,
                    "refused": 5,
                }
            )
    return pd.DataFrame(rows)


@pytest.fixture
def stages(monkeypatch, tmp_path):
    """The finished stages as ``report`` reads them; gives the parameters."""
    played = episodes()
    for arm, part in played.groupby(played["arm"].str.partition("/")[0]):
        (tmp_path / "episodes" / arm).mkdir(parents=True)
        part.to_parquet(tmp_path / "episodes" / arm / "episodes.parquet")
    test = {"split": "test", "tasks": 20, "groups": 10, "instructions": 20, "ids": "abcd1234"}
    facts = {
        "data": {"splits": [{"split": "train", "tasks": 90, "groups": 9, "ids": "00000000"}]},
        "episodes": {"test": test},
        "pairs": {"trees": 9, "tasks": 6},
        "q_model": {
            "pairs": 30,
            "held_out_pairs": 4,
            "held_out_accuracy": 0.75,
            "held_out_by_task": {"a": [2, 2], "b": [1, 2]},
        },
        "control": {"controls": [{"held_out_accuracy": 0.5}, {"held_out_accuracy": None}]},
    }
    nodes = [
        {"node": name, "parent": parent, "action": name, "visits": 1, "value": value}
        for name, parent, value in (
            ("", None, 0.5),
            ("0", "", 0.5),
            ("1", "", 0.0),
            ("0.0", "0", 1.0),
            ("0.1", "0", 1.0),
        )
    ]
    tree = {
        "task": "t",
        "nodes": nodes,
        "env_steps": 1,
        "proposals": 2,
        "tokens": 3,
        "prompt_tokens": 4,
        "refused": 5,
    }

    def read(params, stage):
        manifest = {
            "digest": "d" * 8,
            "seconds": 1.5,
            "sessions": 1,
            "finished": "now",
            "git": {"commit": "c" * 40, "dirty": True},
        }
        return SimpleNamespace(
            path=tmp_path / stage,
            facts=facts.get(stage.partition("/")[0], {}),
            manifest=manifest,
            each=lambda name, sort: iter([tree, tree]),
            table=lambda name: SCORED,
        )

    for module in (numbers.episodes, numbers.kinds, numbers.origins, numbers.pairs, pipeline.pairs):
        monkeypatch.setattr(module, "read_stage", read)
    monkeypatch.setattr(numbers.costs, "seconds_of", lambda stages: 1.5)  # side by side, once
    monkeypatch.setattr(
        numbers.pairs.pipeline,
        "load_pairs",
        lambda params: [SimpleNamespace(depth=depth) for depth in [0] * 20 + [1] * 10 + [3] * 4],
    )
    return make({"name": "known", "results_dir": str(tmp_path / "results"), "bootstrap": 200})


def test_shuffles_are_kept_apart():
    rows = numbers.by_task(episodes())
    of = rows.set_index(["arm", "task", "shuffle"])["reward"]
    assert list(of.loc[("control_q_n5", "t01")]) == [0.2, 0.4]
    assert list(of.loc[("q_n5", "t01")].index) == [0]
    table = numbers.arm_rows(rows, 200).set_index("arm")
    assert list(table.loc[["control_q_n5", "q_n5"], "shuffles"]) == [2, 1]
    assert table.loc["control_q_n5", "tasks"] == 20 and set(table.index) == ARMS
    assert list(table.index)[:3] == ["sample", "greedy", "random_n5"]


def test_an_instruction_that_all_tasks_have_is_no_foreign_one():
    rows = numbers.by_task(episodes())
    for instructions, tested in ((20, True), (None, True), (1, False)):
        found = against(comparable(rows, instructions), 200)
        assert ("foreign" in found["q_n5"]) == ("foreign" in found["q_n10"]) == tested
        assert "kind_only" in found["q_n5"]
        assert reads(found) is (True if tested else None)


def test_intervals_are_of_groups_and_gains_are_paired():
    rows = numbers.by_task(episodes())
    table = numbers.arm_rows(rows, 400).set_index("arm")
    # Each product has one task above and one below the arm's mean: resampling changes nothing.
    assert table.loc["q_n5", ["reward_low", "reward_high"]].tolist() == pytest.approx([0.5, 0.5])
    gain = numbers.gain_rows(rows, 400).set_index("arm").loc["q_n5"]
    assert [gain["gain"], gain["low"], gain["high"], gain["relative"]] == pytest.approx(
        [0.3, 0.3, 0.3, 1.5]
    )


def test_of_several_chains_the_interval_over_tasks_alone_stands_beside():
    """Chains that differ, tasks that do not: the t interval is wide, the bootstrap has no width."""
    chains = [
        episodes({"sample": 0.2, "q_n5": 0.2 + gain}).assign(seed=seed)
        for seed, gain in enumerate((0.1, 0.3, 0.5))
    ]
    gains = numbers.gain_rows(numbers.by_task(pd.concat(chains)), 400)
    row = gains.set_index("arm").loc["q_n5"]
    assert row["gain"] == pytest.approx(0.3) and row["high"] - row["low"] > 0.5
    assert [row["tasks_low"], row["tasks_high"]] == pytest.approx([0.3, 0.3])
    assert "over tasks alone" in tables.display_gains(gains)
    one = numbers.gain_rows(numbers.by_task(chains[0]), 400)
    assert "over tasks alone" not in tables.display_gains(one)


def test_an_interval_covers_what_it_should():
    rng = np.random.default_rng(0)
    frame = episodes({"sample": 0.5}, tasks=400).assign(
        reward=lambda f: rng.uniform(size=len(f)), group=lambda f: f["task"]
    )
    row = numbers.arm_rows(numbers.by_task(frame), 2000).iloc[0]
    half = 1.96 * frame["reward"].std() / np.sqrt(len(frame))
    assert row["reward_high"] - row["reward_low"] == pytest.approx(2 * half, rel=0.1)


def test_an_arm_with_missing_tasks_is_refused():
    frame = episodes()
    with pytest.raises(QvlibError, match="'greedy' was played on 19 tasks"):
        numbers.by_task(
            frame.drop(frame.index[(frame["arm"] == "greedy") & (frame["task"] == "t03")])
        )


def test_unparsable_replies_are_a_share_where_there_are_any():
    frame = episodes()
    frame["unparsable"] = [3 if arm == "q_n5" else 0 for arm in frame["arm"]]
    frame.loc[frame.index[frame["arm"] == "q_n5"][0], "unparsable"] = (
        None  # a record from before they were counted
    )
    table = numbers.arm_rows(numbers.by_task(frame), 200)
    share = table.set_index("arm")["unparsable_share"]
    assert share["q_n5"] == pytest.approx(3 * 19 / (10 * 20)) and share["sample"] == 0
    shown = tables.display_arms(table).set_index("arm")
    assert (shown.loc["q_n5", "unparsable"], shown.loc["sample", "unparsable"]) == ("28.5%", "0.0%")
    without = numbers.arm_rows(numbers.by_task(episodes()), 200)
    assert "unparsable_share" not in without and "unparsable" not in tables.display_arms(without)


def test_gap_closed():
    assert numbers.gap_closed({"sample": 0.2, "q_n5": 0.5, "search": 0.8}) == pytest.approx(0.5)
    assert numbers.gap_closed({"sample": 0.2, "q_n5": 0.5, "search": 0.2}) is None


def test_the_layout_of_metrics(stages):
    found = numbers.metrics(stages)
    assert set(found["arms"]) == ARMS and set(found["gains"]) == ARMS - {"sample"}
    assert set(found["gains_over_greedy"]) == ARMS - {"greedy"}
    for entry in found["arms"].values():
        assert {"reward_mean", "success_rate", "ci95", "tasks", "seeds"} <= set(entry) and len(
            entry["ci95"]
        ) == 2
    for group in (found["gains"], found["gains_over_greedy"], {"x": found["other_agent_gain"]}):
        keys = {"mean", "ci95", "relative", "relative_ci95"}
        assert all(set(entry) == keys for entry in group.values())
    assert found["gap_closed"] == pytest.approx(0.3 / 0.615) and found["other_agent_gain"][
        "mean"
    ] == pytest.approx(0.1)
    assert found["arms"]["search"]["success_rate"] == 1 / 20 and found["refused_share"] == 0.5
    assert found["preferences"]["held_out_accuracy"] == 0.75 and (
        found["environment"],
        found["groups"],
    ) == ("webshop", "products")
    assert {key: found["preferences"][key] for key in ("trees", "tasks", "states", "ties")} == {
        "trees": 9,
        "tasks": 6,
        "states": 4,
        "ties": 2,
    }
    assert "6 of 9 searched tasks (67%) give pairs. Of the 4 states" in sentences.sources(
        found["preferences"]
    )
    assert found["control_shuffles"] == {
        "control_q_n5": pytest.approx([0.1, 0.3]),
        "control_q_n10": pytest.approx([0.2, 0.2]),
    }
    assert found["null"]["shuffles"] == pytest.approx([-0.1, 0.1])
    assert found["null"]["rank_p"] == pytest.approx(1 / 3)
    assert "none gain as much as Q (-0.100 to +0.100; rank p = 0.33" in sentences.verdict(found)
    assert found["search_iterations"] == 30 and "parts" not in found  # no actions were kept
    told = found["accuracy_by_kind"]["buy against option"]
    assert told == found["accuracy_by_kind"]["all"] and (told["own"], told["pairs"]) == (0.75, 40)
    assert (told["foreign"], told["log_pi"], told["own_minus_log_pi"]) == (0.5, None, None)
    assert found["splits"][-1] == {
        "split": "test played",
        "tasks": 20,
        "groups": 10,
        "instructions": 20,
        "ids": "abcd1234",
    }
    cost = found["cost"]
    assert (
        cost["collecting_tokens"] == 6
        and cost["tokens"] == 6 + 10 * 20 * len(REWARDS)
        and cost["seconds"] == 1.5 * 9
    )


def test_what_bounds_the_gain_is_told(stages):
    text = sentences.diagnosis(numbers.metrics(stages))
    assert (
        "34 in all, 88% of them about the first two actions of an episode, the deepest after 3 "
        "actions" in text
    )
    assert (
        "75.0% [1.0%, 99.9%] of 4 held-out pairs are ordered rightly, not distinguishable from "
        "chance (95 % interval contains 50 %), the interval over 2 tasks" in text
    )
    assert re.search(
        r"of five the best, as the demonstrator without errors tries \+.*\] and a search "
        r"\+0.615 \[.*\]; "
        r"by Q \+0.300 \[.*\] with n = 5",
        text,
    )


def test_a_table_is_the_same_where_another_processor_sums_in_another_order(stages):
    one, other = (
        tables.save(stages, name, pd.DataFrame({"x": [x, 0.0], "n": [3, 4]})).with_suffix(".csv")
        for name, x in (("one", 0.1 + 0.2), ("other", 0.3))
    )
    assert one.read_text() == other.read_text() == "x,n\n0.3,3\n0.0,4\n"


def test_tables_and_metrics_are_written(stages):
    numbers.write_metrics(stages)
    tables.write_tables(Context(stages))
    folder = tables.resolve(stages.run.results_dir) / "known"
    assert (folder / "metrics.json").exists()
    for name in ("summary", "arms", "gains", "gains_over_greedy", "splits", "stages"):
        text = (folder / "tables" / f"{name}.md").read_text()
        assert "test played 20 (abcd1234)" in text.splitlines()[-1]
        assert (folder / "tables" / f"{name}.csv").exists()
    assert (pd.read_csv(folder / "tables" / "arms.csv")["test_tasks_hash"] == "abcd1234").all()
    lines = (folder / "tables" / "summary.md").read_text().splitlines()
    assert len({len(line) for line in lines[:-2]}) == 1  # lines up
    (line,) = [line for line in lines if line.startswith("| q_n5 ")]
    assert [cell.strip() for cell in line.split("|")[1:3]] == ["q_n5", "0.500"]
    assert "+150.0%" in line and "95 % of relative" in lines[0]
    assert "Intervals: 95 %, bootstrap over 10 products, 200 resamples" in lines[-1]
    assert "With 10 products the intervals are too narrow" in lines[-1]


def test_tables_of_a_run_are_of_all_its_chains(stages):
    """Whatever chain the context at hand is of; a notebook's is of the first."""
    run = stages.replace(seeds=2)
    made = tables.write_tables(Context(run.each_seed()[0]), run)
    assert set(made["arms"]["seeds"]) == {2} and list(made["by_seed"]["seed"]) == [0, 1]
    folder = tables.resolve(stages.run.results_dir) / "known"
    note = (folder / "tables" / "summary.md").read_text().splitlines()[-1]
    assert "t over 10 products and 2 seeds" in note and "too narrow" not in note
    source = (Path(__file__).parents[1] / "notebooks" / "07_report.ipynb").read_text()
    assert "write_tables(run.context, params)" in source
    assert "failures(run.context, params)" in source


def test_sentences_follow_the_intervals(stages):
    found = numbers.metrics(stages)
    said = sentences.claim(found)
    assert "five earns more than one sample, greedy decoding, the likeliest of them" in said
    assert "shuffled labels gain" not in said
    found["gains_over_greedy"]["control_q_n5"] = {"mean": 0.05, "ci95": [0.01, 0.09]}
    few = sentences.claim(found)  # two shuffles may agree by accident
    assert (
        "gain too, +0.050 [+0.010, +0.090] over greedy decoding, though so few shuffles (2)" in few
    )
    found["null"]["mean"] = {"mean": 0.05, "ci95": [0.01, 0.09]}
    assert "gain too, +0.050 [+0.010, +0.090] over greedy decoding" in sentences.claim(found)
    found["gains"]["q_n5"]["ci95"] = [-0.1, 0.5]
    assert "it is not shown to earn more than one sample" in sentences.claim(found)
    assert re.search(
        r"\+150% \[.*\]: not significant \(95 % interval contains 0\)\.", sentences.verdict(found)
    )
    assert "significantly above 0" in sentences.verdict(found)
    assert "75.0%" in sentences.accuracy(found["preferences"])


def test_markdown_is_escaped_and_aligned():
    text = tables.markdown(pd.DataFrame({"a|b": ["x|y\nz", "w"], "n": [1.5, float("nan")]}))
    assert text.splitlines() == [
        "| a\\|b   |     n |",
        "|:-------|------:|",
        "| x\\|y z | 1.500 |",
        "| w      |       |",
    ]


def test_a_table_without_rows_keeps_its_head():
    empty = tables.markdown(pd.DataFrame({"arm": [], "reward": pd.Series([], dtype=float)}))
    assert empty.splitlines()[0] == "| arm   | reward   |" and len(empty.splitlines()) == 2
    assert (
        tables.markdown(pd.DataFrame({"n": ["+1,234", "5.0%", ""]})).splitlines()[1] == "|-------:|"
    )


def test_numbers_are_written_alike_everywhere():
    assert formats.difference(0.1294, 0.09, 0.17) == "+0.129 [+0.090, +0.170]"
    assert formats.interval(0.301, 0.954, ".1%") == "[30.1%, 95.4%]"
    assert (formats.relative(0.372), formats.relative(0.372, 1)) == ("+37%", "+37.2%")
    for unknown in (None, float("nan")):
        assert formats.difference(unknown, 0.0, 0.0) == formats.relative(unknown) == ""
        assert formats.signed(unknown) == ""
    assert (formats.number(1234567), formats.number(1.25)) == ("1,234,567", "1.25")
    assert (formats.millions(1_234_567), formats.millions(0)) == ("1.23 M", "")


def test_numbers_of_a_column_have_the_same_decimals():
    table = pd.DataFrame({"share": [0.5, 0.3333333], "count": [3.0, 1200.0], "steps": [12.34, 4.0]})
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in tables.markdown(table).splitlines()[2:]
    ]
    assert rows == [["0.500", "3", "12.3"], ["0.333", "1,200", "4.0"]]
