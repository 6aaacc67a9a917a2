"""Published figures beside ours: what stands in which cell, and what may be said of it."""

from __future__ import annotations

import re

import pandas as pd
import pytest

from qvlib.base.paths import resolve
from qvlib.pipeline import grids
from qvlib.pipeline.params import load, make
from qvlib.report import figures, published, tables
from qvlib.report.published.agents import Finished, finished
from qvlib.report.sentences import beside_paper as said

PHI3, LLAMA = "microsoft/Phi-3-mini-4k-instruct", "meta-llama/Llama-3.1-8B-Instruct"


def gain(mean, half=0.04, base=0.4):
    bounds = [mean - half, mean + half]
    shares = [bound / base for bound in bounds]
    return {"mean": mean, "ci95": bounds, "relative": mean / base, "relative_ci95": shares}


def arm(mean):
    return {"reward_mean": mean, "ci95": [mean - 0.05, mean + 0.05], "tasks": 100}


def ran(name, environment="webshop", q=0.1, second=None, **parameters):
    """A finished run whose Q gains ``q`` over a sample of 0.4, and ``second`` of another agent."""
    arms, gains = {"sample": arm(0.4), "q_n5": arm(0.4 + q)}, {"q_n5": gain(q)}
    metrics = {"environment": environment, "chains": 3, "arms": arms, "gains": gains}
    metrics["preferences"] = {"held_out_accuracy": 0.6, "held_out_pairs": 50}
    metrics["against"] = {"q_n5": {"foreign": gain(q / 2)}}
    if second is not None:
        arms |= {"other_agent_sample": arm(0.4), "other_agent_q_n5": arm(0.4 + second)}
        metrics |= {"other_agent_gain": gain(second), "other_agent_against_foreign": gain(0.0)}
    small = {"agent": "small", "agent_width": 96, "agent_layers": 2, "demonstrations": 2400}
    other = {"other_width": 64, "other_layers": 2, "other_demonstrations": 1200}
    return Finished(name, metrics, small | other | parameters)


def swapped(name, **more):
    return ran(
        name,
        agent_width=64,
        demonstrations=1200,
        other_width=96,
        other_demonstrations=2400,
        **more,
    )


# -- the figures ------------------------------------------------------------------------------


def every_figure():
    return [figure for each in published.figures().values() for figure in each]


def test_each_figure_tells_where_it_is_from():
    assert len(every_figure()) > 20
    for figure in every_figure():
        assert figure["source"] in published.SOURCES or re.fullmatch(
            r"\d{4}\.\d{5}", figure["source"]
        ), figure
        if "relative" in figure and "q" in figure:  # +103 % is 0.61 for 0.30
            assert figure["q"] / figure["sample"] - 1 == pytest.approx(figure["relative"], abs=0.01)


def test_what_is_second_hand_or_not_known_is_marked():
    known = {"source": "P", "q": 0.61}
    assert published.told(known, "q", "{:.2f}") == "0.61"
    assert published.told(known, "sample", "{:.2f}") == "?"
    assert published.told({"source": "S", "accuracy": 0.67}, "accuracy", "{:.0%}") == "67% ?"
    doubted = {"source": "P", "doubt": True, "relative": [0.09, 0.14]}
    assert published.told(doubted, "relative", "{:+.0%}") == "+9% to +14% ?"
    assert published.source({"source": "S", "where": "fig. 5a"}) == "S, fig. 5a"
    assert published.source({"source": "2502.18407"}) == "arXiv 2502.18407"


# -- agents -----------------------------------------------------------------------------------


def test_a_run_stands_beside_its_own_model_else_beside_the_smallest():
    runs = [ran("ours"), ran("theirs", agent=LLAMA), ran("elsewhere", environment="textworld")]
    table = published.agents(runs)
    web = table[table["benchmark"] == "webshop"].set_index("run")
    assert web.loc["theirs", "paper_agent"] == LLAMA and pd.isna(web.loc["theirs", "paper_q"])
    assert web.loc["ours", "paper_agent"] == PHI3 and web.loc["ours", "paper_q"] == 0.61
    assert "elsewhere" not in set(table["run"])
    assert (web.loc[""]["paper_agent"] == PHI3).sum() == 1  # the paper's own, which is not run
    shown = published.display_agents(table)
    columns = list(shown.columns)
    for what in ("one sample", "with Q", "relative gain"):
        assert columns.index(f"{what}, ours") == columns.index(f"{what}, paper") + 1
    row = shown[shown["agent, ours"] == "small, run ours"].iloc[0]
    assert (row["with Q, paper"], row["with Q, ours"]) == ("0.61", "0.500 [0.450, 0.550]")
    assert (row["relative gain, paper"], row["relative gain, ours"]) == (
        "+103%",
        "+25% [+15%, +35%]",
    )
    llama = shown[shown["agent, ours"] == f"{LLAMA}, run theirs"].iloc[0]
    assert llama["with Q, paper"] == "?" and llama["with Q, ours"] == "0.500 [0.450, 0.550]"
    tables.markdown(shown)


def test_the_second_agent_of_a_run_may_be_a_published_one():
    run = ran("second", second=0.2, other_agent="api:gpt-4-turbo")
    row = published.agents([run]).set_index("run").loc["second"]
    turbo = row[row["paper_agent"] == "api:gpt-4-turbo"].iloc[0]
    assert turbo["gain"] == pytest.approx(0.2) and turbo["q"] == pytest.approx(0.6)


@pytest.mark.parametrize(
    "q, words, never",
    [
        (0.1, "here +25% [+15%, +35%]: the published gain lies above our interval", "not signif"),
        (0.41, "the published gain lies inside our interval", "above our"),
        (0.9, "the published gain lies below our interval", "above our"),
        (0.02, "here +0.020 [-0.020, +0.060], not significant", "+5%"),
        (-0.2, "here -0.200 [-0.240, -0.160], significantly below 0", "-50%"),
    ],
)
def test_what_is_said_of_a_run_beside_the_paper(q, words, never):
    text = said.beside_published(published.agents([ran("r", q=q)]).to_dict("records"))
    (line,) = [line for line in text.splitlines() if "run `r`" in line]
    assert words in line and never not in line and "published +103%" in line


def test_without_a_run_it_says_so():
    text = said.beside_published(published.agents([]).to_dict("records"))
    assert "No run here is of these benchmarks" in text and "`api:gpt-4o-mini`" in text


def test_relatives_and_accuracy_stand_beside_ours():
    rft = ran("rft")
    rft.metrics["arms"]["rft"] = arm(0.44)
    rft.metrics["gains"]["rft"] = gain(0.04)
    table = published.relatives([ran("plain"), rft]).set_index("method")
    assert table.loc["RFT", "run"] == "rft" and table.loc["RFT", "relative"] == pytest.approx(0.1)
    assert table.loc["RFT", "paper_relative"] == pytest.approx(0.636 / 0.631 - 1)
    assert table.loc["PPO", "run"] == "" and table.loc["SFT", "paper_relative"] == 0
    shown = published.display_relatives(table.reset_index()).set_index("method")
    assert shown.loc["PPO", "ours is"] == "not played"
    rows = published.accuracy([ran("a", environment="hotpotqa"), ran("b")]).set_index("run")
    assert rows.loc["a", "rightly ordered, paper"] == "67% ?"
    assert rows.loc["b", "rightly ordered, paper"] == "?"


def test_runs_are_read_from_the_results_folder_and_missing_ones_left_out(tmp_path):
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "metrics.json").write_text("{}")
    assert finished(tmp_path, ["half", "none"]) == []
    found = finished(resolve("results"), ["quick", "none", "quick"])
    assert [run.name for run in found] == ["quick"] and found[0].benchmark == "webshop"


# -- axes -------------------------------------------------------------------------------------


def cells(*axes):
    base = make({})
    made = [grids.Cell("the run", "as it is", base, True)]
    for axis, change in axes:
        changed = base.replace(**change)
        made.append(grids.Cell(axis, grids.labelled(change), changed, True, change))
    return made


def row(cell, change=0.0, failed="", n=10):
    known = {"axis": cell.axis, "choice": cell.label, "candidates": n, "failed": failed}
    if failed:
        return known
    numbers = {"reward": 0.5, "gain": 0.1, "change": change, "minus_likely": 0.02}
    numbers |= {"minus_oracle": -0.2, "minus_foreign": 0.06}
    bounds = {f"{k}_low": v - 0.04 for k, v in numbers.items()}
    bounds |= {f"{k}_high": v + 0.04 for k, v in numbers.items()}
    twins = {"sample": 0.4, "likely": 0.48, "oracle": 0.7, "foreign": 0.44}
    return known | numbers | bounds | twins


def test_a_choice_stands_beside_what_is_published_of_it():
    made = cells(
        ("training tasks", {"train_tasks": 250}),
        ("training tasks", {"train_tasks": 25}),
        ("epochs", {"dpo_epochs": 3}),
        ("pairs", {"pairs": "best_path", "min_visits": 0}),
    )
    table = published.axes(made, pd.DataFrame([row(cell) for cell in made]))
    tasks = table[table["axis"] == "training tasks"]
    assert list(tasks["choice"]) == [
        "train_tasks 25",
        "train_tasks 90 (the run)",
        "train_tasks 250",
    ]
    assert list(tasks["paper"]) == ["?", "?", "already help ?"]
    epochs = table[table["axis"] == "epochs"]
    assert list(epochs["paper"]) == ["0.145 for 0.104 sampled", "0.105 for 0.104 sampled"]
    assert list(epochs["own"]) == [True, False]
    assert list(table[table["axis"] == "pairs"]["own"]) == [False]  # no numbers: no place for it
    shown = published.display_axes(table)
    columns = list(shown.columns)
    assert columns[columns.index("paper") + 1] == "gain over one sample, ours"
    own = shown[shown["choice"] == "dpo_epochs 1 (the run)"].iloc[0]
    assert own["change against the run, ours"] == ""


def test_only_what_its_interval_shows_is_said_of_an_axis():
    made = cells(
        ("beta", {"beta": 0.3}),
        ("beta", {"beta": 0.03}),
        ("log", {"log_prob": "mean"}),
        ("filter", {"filter_actions": False}),
    )
    rows = [row(made[0]), row(made[1], 0.1), row(made[2], -0.1), row(made[3], 0.03)]
    table = published.axes(made, pd.DataFrame([*rows, row(made[4], failed="no memory")]))
    text = said.axes(table.to_dict("records"))
    beta, log, broken, total = text.splitlines()
    assert "better than the run: beta 0.3 +0.100" in beta
    assert "worse than the run: beta 0.03 -0.100" in beta
    assert "no choice of 1 is shown to differ" in log and "better" not in log
    assert "failed: filter_actions False (no memory)" in broken and "differ" not in broken
    assert "Of 3 comparisons" in total


def test_candidates_stand_beside_their_twins():
    made = cells(("candidates", {"trial_n": 2}), ("beta", {"beta": 0.3}))
    rows = [row(made[0], n=10), row(made[1], n=2), row(made[2], n=10)]
    table = published.by_candidates(pd.DataFrame(rows))
    assert list(table["n"]) == [1, 2, 10] and table["q"].iloc[0] == table["oracle"].iloc[0] == 0.4
    text = said.by_candidates(table.to_dict("records"))
    assert "Q earns more than one sample with n = 2 and 10." in text
    assert "Over the likeliest of the same candidates: not shown with n = 2 and 10." in text
    assert "more than itself told another task's instruction with n = 2 and 10" in text
    assert "earns +0.200 [+0.160, +0.240] more than Q, which goes 33% of its way" in text
    nothing = [
        {**r, "gain": 0.0, "gain_low": -0.1, "gain_high": 0.1} for r in table.to_dict("records")
    ]
    assert "of its way" not in said.by_candidates(nothing)
    assert len(figures.png(figures.candidates(table))) > 1000
    shown = published.display_candidates(table)
    assert shown["Q minus one sample"].iloc[0] == ""


# -- transfer ---------------------------------------------------------------------------------


def test_a_run_fills_a_row_and_its_mirror_the_other():
    runs = [ran("a", q=0.1, second=0.2), swapped("b", q=0.3, second=-0.1)]
    table = published.transfer(runs)
    wide, narrow = (
        f"small, {w} wide, 2 layers, {d} demonstrations" for w, d in ((96, "2,400"), (64, "1,200"))
    )
    gains = table.set_index(["trees", "actions"])["gain"]
    assert gains[wide, wide] == 0.1 and gains[wide, narrow] == 0.2
    assert gains[narrow, narrow] == 0.3 and gains[narrow, wide] == -0.1
    shown = published.display_transfer(table)
    assert list(shown["Q of the trees of"]) == [f"A: {wide}", f"B: {narrow}"]
    assert shown["actions of B"].iloc[0].startswith("+0.200 [+0.160, +0.240] (+50%)")
    assert shown["actions of A"].iloc[1].startswith("-0.100")
    text = said.transfer(table.to_dict("records"), ["hotpotqa +9% ?"])
    assert "+0.200 [+0.160, +0.240] (+50%): significantly above 0." in text
    assert "-0.100 [-0.140, -0.060]: significantly below 0." in text  # and no share of a loss
    assert "instruction: +0.000 [-0.040, +0.040]: not significant" in text
    assert text.splitlines()[0] == "- Published: hotpotqa +9% ?."


def test_what_was_not_played_says_so_and_agents_that_never_met_stand_apart():
    alone = ran("alone", agent_width=32)
    table = published.transfer([alone, ran("a", second=0.2), ran("again", q=0.9, second=0.9)])
    assert set(table["run"]) == {"a"}  # the first of the same agents; no transfer, no row
    shown = published.display_transfer(table)
    assert list(shown["actions of A"].iloc[1:]) == ["not played"]
    far = ran("c", second=0.1, agent_width=128, other_width=48)
    rows = published.display_transfer(published.transfer([ran("a", second=0.2), far]))
    assert [name[0] for name in rows["Q of the trees of"]] == ["A", "B", "A", "B"]
    assert "No run here has played a second agent" in said.transfer([], [])


def test_the_file_of_the_other_agents_trees_mirrors_quick():
    quick, other = (load(resolve(f"params/{name}.yml")).flat() for name in ("quick", "quick-other"))
    assert published.made(quick) == published.made(other, "other_agent")
    assert published.made(quick, "other_agent") == published.made(other)
    same = {k for k in quick if not k.startswith(("agent_", "other_")) and k != "name"}
    assert {k for k in same if quick[k] != other[k]} == {"demonstrations"}


# -- what differs -----------------------------------------------------------------------------


def test_the_list_of_differences_is_numbered_and_computed():
    text = published.listed(make({}))
    numbers = [int(number) for number in re.findall(r"^(\d+)\. \*\*", text, re.M)]
    assert numbers == list(range(1, len(numbers) + 1)) and len(numbers) > 5
    assert "`discount` 0.95, published 1" in text and f"published {PHI3}" in text
    paper = load(resolve("params/paper/webshop-phi3-mini.yml"))
    assert published.differences(paper) == {}
    changed = published.differences(paper.replace(train_tasks=7))
    assert changed == {"budget": [("train_tasks", 7, 1000)]}
    assert "no settings for this world" in published.listed(make({"environment": "textworld"}))


def test_the_topics_name_parameters():
    from qvlib.report.published.differences import TOPICS

    known = set(load(resolve("params/paper/webshop-phi3-mini.yml")).flat())
    known |= set(load(resolve("params/paper/hotpotqa-phi3-mini.yml")).flat())
    named = [name for names in TOPICS.values() for name in names.split(", ")]
    assert len(set(named)) == len(named) and set(named) <= known


def test_a_run_that_is_named_and_not_there_is_told(tmp_path):
    for name, files in (("here", ("metrics.json", "manifest.json")), ("half", ("metrics.json",))):
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).write_text("{}")
    named = {"results_dir": str(tmp_path), "name": "own"}
    params = make({**named, "compared_runs": ["gone", "own", "here", "half", "gone"]})
    assert published.absent(params).endswith("not among the results, so left out: gone, half.")
    assert published.absent(make({**named, "compared_runs": ["here"]})) == ""
