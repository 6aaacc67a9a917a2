"""Arms at one budget: tuned on dev tasks alone, cut where another ends, judged by intervals."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml
from killing import tiny

from qvlib import pipeline
from qvlib.agents.asked import models_asked
from qvlib.base.errors import QvlibError
from qvlib.base.paths import resolve
from qvlib.pipeline import baselines
from qvlib.pipeline.params import load as load_params
from qvlib.pipeline.params import make
from qvlib.report import budget, figures
from qvlib.report.sentences import budget as said
from qvlib.runs.stage import is_complete, read_stage, stage_path

FILE = """
sample: [{}]
likely_n5: [{}]
q_n5: [{dpo_lr: 1.0e-4}, {dpo_lr: 1.0e-3}]
rft: [{rft: true, rft_lr: 1.0e-4}, {rft: true, rft_min_reward: 1.0, rft_lr: 2.0e-4}]
agent_evol: [{rft: true, rft_rounds: 2, rft_min_reward: 1.0}]
best_of_n: [{best_of: 3}]
search: [{search_iterations: 4}]
"""


def sweep(folder, text=FILE, **changes):
    path = folder / "baselines.yml"
    path.write_text(text)
    return tiny(folder, baselines=str(path), trial_tasks=6, test_tasks=7, **changes)


# -- the file -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, message",
    [
        ("sample: [{}]", "has no line for q_n5"),
        ("q_n5: [{}]", "has no line for sample"),
        ("sample: [{}]\nq_n5: {}", "q_n5: is no list of {parameter: value, ...}"),
        (
            "sample: [{}]\nq_n5: [{}]\nrtf: [{}]",
            "rtf: there is no such arm; give one of agent_evol",
        ),
        ("sample: [{}]\nq_n5: [{}]\nrft: [{}]", "rft: these settings do not switch it on"),
        (
            "sample: [{}]\nq_n5: [{dpo_lr: 1.0e-4}, {dpo_lr: 1.0e-4}]",
            "q_n5: the same settings twice",
        ),
        ("sample: [{}]\nq_n5: [{dpo_rl: 1.0e-4}]", "did you mean 'dpo_lr'?"),
        ("sample: [{}]\nq_n5: [{temperature: 0.5}]", "temperature changes the agent, its sampling"),
        ("sample: [{}]\nq_n5: [{test_tasks: 3}]", "test_tasks changes the agent, its sampling"),
        ("sample: [{}]\nq_n5: [{seed: 3}]", "seed is the whole run's"),
        ("sample: [{}]\nq_n5: [{}]\ncontrol_q_n5: [{}]", "has several shuffles"),
        (
            "sample: [{}]\nq_n5: [{}, {dpo_lr: 1.0e-3}]\n"
            "eto: [{eto: true}, {eto: true, eto_lr: 0.1}, {eto: true, eto_lr: 0.2}]",
            "tries eto with 3 settings and q_n5 with 2; give each as many, or one",
        ),
    ],
)
def test_a_wrong_line_is_told_before_any_work(tmp_path, text, message):
    with pytest.raises(QvlibError) as caught:
        baselines.read(sweep(tmp_path, text))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(QvlibError, match=r"nowhere\.yml"):
        baselines.read(make({"baselines": str(tmp_path / "nowhere.yml")}))


def test_the_file_of_the_project_tunes_all_alike_on_a_catalogue_of_its_own():
    params = load_params(resolve("params/baselines.yml"))
    tries = baselines.read(params)
    counts = pd.Series([one.name for one in tries]).value_counts()
    assert {*counts} == {1, 4}
    wanted = "likely_n5 self_consistency_n5 rft agent_evol eto tuned_policy best_of_n reflexion"
    assert {*wanted.split(), "reflexion_q", "lats", "search", "q_n5", "sample"} <= {*counts.index}
    assert params.run.seeds == 3
    # RFT and AgentEvol exclude each other in one run; here each has settings of its own.
    by = {one.name: one.params.rft.rft_rounds for one in tries if one.name in ("rft", "agent_evol")}
    assert by == {"rft": 1, "agent_evol": 2}


def test_the_file_for_a_chat_model_searches_as_smollm2_does_and_plays_the_same_arms():
    params = load_params(resolve("params/baselines-smollm2.yml"))
    tries = baselines.read(params)
    counts = pd.Series([one.name for one in tries]).value_counts()
    played = {one.name for one in baselines.read(load_params(resolve("params/baselines.yml")))}
    assert {*counts} == {1, 2} and {*counts.index} == played - {"likely_n10"}
    assert params.digest("trees") == load_params(resolve("params/smollm2.yml")).digest("trees")


def test_trying_on_dev_is_decided_by_what_the_arm_is_and_by_no_test_tasks():
    params = make({"rft": True})
    digest = params.digest("dev/rft")
    for change in ({"test_tasks": 7}, {"test_skip": 5}, {"eto": True}, {"best_of": 3}):
        assert params.replace(**change).digest("dev/rft") == digest
    for change in ({"trial_tasks": 7}, {"rft_lr": 1e-5}, {"train_tasks": 5}, {"temperature": 0.7}):
        assert params.replace(**change).digest("dev/rft") != digest
    assert "q_model" in params.upstream("dev/q_n5") and "q_model" not in params.upstream("dev/rft")
    assert params.digest("dev/q_n5") != params.replace(prior_weight=1.0).digest("dev/q_n5")


# -- tried, chosen, played ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def params(tmp_path_factory):
    made = sweep(tmp_path_factory.mktemp("baselines"), seeds=2)
    pipeline.train_agents(made)
    return made


@pytest.fixture(scope="module")
def outcome(params):
    return baselines.run(params)


@pytest.mark.slow
def test_settings_are_chosen_on_dev_and_only_the_chosen_see_test_tasks(params, outcome):
    table = outcome.tries
    names = "sample likely_n5 q_n5 rft agent_evol best_of_n search"
    assert [*table["estimator"].unique()] == names.split()
    environment = pipeline.context_of(params).environment
    dev, test = ({t.id for t in environment.tasks(split)} for split in ("dev", "test"))
    sampled = read_stage(params.each_seed()[0], "dev/sample").table("episodes")
    for one in baselines.read(params):
        first, second = one.params.each_seed()
        row = table[(table["estimator"] == one.name) & (table["choice"] == one.label)].iloc[0]
        if row["failed"]:
            assert one.change["rft_min_reward"] == 1 and "rft_min_reward" in row["failed"]
            continue
        played = read_stage(first, f"dev/{one.name}").table("episodes")
        assert {*played["task"]} <= dev and len(played) == 6
        assert row["reward"] == pytest.approx(played["reward"].mean())
        assert row["gain"] == pytest.approx(played["reward"].mean() - sampled["reward"].mean())
        assert not is_complete(second, f"dev/{one.name}")  # compare_chains: first
        chosen = outcome.chosen.get(one.name) == one
        assert chosen == bool(row["chosen"])
        for chain in (first, second):
            if chosen:
                episodes = read_stage(chain, f"episodes/{one.name}").table("episodes")
                assert {*episodes["task"]} <= test and len(episodes) == 7
    assert baselines.is_made(params) and baselines.seconds(params) > 0
    assert (table["failed"] != "").sum() == 2
    assert {*outcome.failed} == {"agent_evol"} and "lower it" in outcome.failed["agent_evol"]


@pytest.mark.slow
def test_what_is_finished_is_found_again(params, outcome, monkeypatch):
    tried, cells = [], baselines.Cells

    def counted(context, missing):
        tried.extend(missing)
        return cells(context, missing)

    monkeypatch.setattr(baselines, "Cells", counted)
    again = baselines.run(params)
    assert again.tries.equals(outcome.tries) and again.chosen == outcome.chosen
    # What failed is tried again, and nothing else.
    assert len(tried) == 2 and all("rft_min_reward 1" in label for label, _ in tried)


def test_without_what_all_others_are_laid_beside_there_is_no_study():
    baselines._must_be_there({"rft": "no luck"})
    with pytest.raises(QvlibError, match="q_n5, beside which all others are laid, was not played"):
        baselines._must_be_there({"rft": "no luck", "q_n5": "no pairs"})


@pytest.mark.slow
def test_a_study_of_what_was_played(params, outcome):
    found = budget.load(outcome)
    table = budget.reckoned(found, 100).set_index("arm")
    assert [*found.arms] == [*table.index] and {*table.index} == {*outcome.chosen}
    assert table["curve"].to_dict() == {arm: arm in ("best_of_n", "search") for arm in table.index}
    for arm, row in table.iterrows():
        assert row["tokens"] == pytest.approx(row["own_tokens"] * (3 if arm == "q_n5" else 1))
    shown = budget.display(table.reset_index())
    assert shown["settings, chosen on dev"].str.len().all()
    assert figures.png(figures.reward_by_spending(found, table.reset_index()))
    rows = table.reset_index().to_dict("records")
    assert "Q of five" in said.conclusion(rows) and "With as many" in said.at_one_budget(rows)


@pytest.mark.slow
def test_a_search_that_was_played_before_its_curve_was_kept_says_what_plays_it_anew(
    params, outcome, monkeypatch
):
    def old(params, stage, *more):
        played = budget_load(params, stage, *more)
        if "rises" in played:  # with tokens they have been kept since
            played["rises"] = [[[s, r] for s, r, _ in rises] for rises in played["rises"]]
        return played

    budget_load = budget.load_episodes
    monkeypatch.setattr(budget, "load_episodes", old)
    with pytest.raises(QvlibError, match="delete the folder") as caught:
        budget.load(outcome)
    assert "search was played before" in str(caught.value)
    folder = stage_path(outcome.chosen["search"].params.each_seed()[0], "episodes/search").name
    assert folder in str(caught.value)


# -- the reckoning, by hand -----------------------------------------------------------------------


def episodes(arm, rewards, tokens, steps, seeds=(0,), **curves):
    """Episodes of an arm, in each chain; half of the tokens are read."""
    return [
        {"arm": arm, "task": f"t{i}", "group": f"g{i}", "reward": reward, "seed": seed}
        | {"env_steps": steps, "tokens": tokens / 2, "prompt_tokens": tokens / 2}
        | {"proposals": 1, "refused": 0, "unparsable": 0}
        | {name: curves[name][i] if name in curves else None for name in ("rises", "trials")}
        for seed in seeds
        for i, reward in enumerate(rewards)
    ]


RISES = [[(2, 0.4, 20), (6, 0.8, 60)], [(2, 1.0, 20)], []]
TRIALS = [
    [(3, 0.4, 15), (6, 0.4, 30), (9, 0.8, 45)],
    [(3, 0.2, 15), (6, 1.0, 30), (9, 1.0, 45)],
    [(3, 0.0, 15), (6, 0.0, 30), (9, 0.0, 45)],
]


def studied(*more, seeds=(0,)):
    rows = episodes("sample", [0.2, 0.4, 0.0], 10, 2, seeds)
    rows += episodes("q_n5", [0.6, 0.8, 0.4], 10, 3, seeds)
    rows += episodes("search", [0.8, 1.0, 0.0], 80, 8, seeds, rises=RISES)
    rows += episodes("reflexion_q", [0.8, 1.0, 0.0], 45, 9, seeds, trials=TRIALS)
    for each in more:
        rows += each
    return budget.study(pd.DataFrame(rows), {"q_n5": 2, "reflexion_q": 2}, {"search": "as it is"})


def test_what_q_reads_is_counted_for_each_model_that_is_asked():
    found = studied()
    assert found.of("q_n5")["tokens"].tolist() == [30] * 3
    assert found.of("q_n5")["own_tokens"].tolist() == [10] * 3
    assert found.of("sample")["tokens"].tolist() == [10] * 3
    assert found.of("reflexion_q")["trials"].iloc[0] == [(3, 0.4, 45), (6, 0.4, 90), (9, 0.8, 135)]


@pytest.mark.parametrize(
    "cost, limit, rewards, spent",
    [
        ("tokens", 19, [0, 0, 0], [19, 19, 19]),
        ("tokens", 20, [0.4, 1.0, 0], [20, 20, 20]),
        ("tokens", 59, [0.4, 1.0, 0], [59, 20, 59]),  # the second has earned all there is
        ("tokens", 999, [0.8, 1.0, 0], [80, 20, 80]),
        ("steps", 5, [0.4, 1.0, 0], [5, 2, 5]),
        ("steps", 6, [0.8, 1.0, 0], [6, 2, 6]),
    ],
)
def test_a_search_is_stopped_by_hand(cost, limit, rewards, spent):
    told = budget.stopped(studied().of("search"), cost, limit)
    assert [list(each) for each in told] == [rewards, spent]


@pytest.mark.parametrize(
    "trials, rewards, spent",
    [
        (1, [0.4, 0.2, 0], [3, 3, 3]),
        (2, [0.4, 1.0, 0], [6, 6, 6]),
        (3, [0.8, 1.0, 0], [9, 6, 9]),  # the second has earned all there is
        (9, [0.8, 1.0, 0], [9, 6, 9]),
    ],
)
def test_so_many_trials_by_hand(trials, rewards, spent):
    told = budget.after(studied().of("reflexion_q"), "steps", trials)
    assert [list(each) for each in told] == [rewards, spent]


def test_an_arm_is_cut_where_it_spends_as_much_on_average():
    search = studied().of("search")
    # With a limit of 65, 20 + 65 + 65 = 150 are spent: 50 a task, enough for the first's second.
    assert list(budget.cut(search, "tokens", 50)) == [0.8, 1.0, 0.0]
    assert list(budget.cut(search, "tokens", 46)) == [0.4, 1.0, 0.0]  # a limit of 59
    assert list(budget.cut(search, "tokens", 1000)) == [0.8, 1.0, 0.0]
    assert list(budget.cut(search, "tokens", 3)) == [0.0, 0.0, 0.0]
    again = studied().of("reflexion_q")
    assert budget.cut(again, "steps", 2.9) is None
    assert list(budget.cut(again, "steps", 3)) == [0.4, 0.2, 0.0]
    assert list(budget.cut(again, "steps", 7.9)) == [0.4, 1.0, 0.0]
    assert list(budget.cut(again, "steps", 8)) == [0.8, 1.0, 0.0]
    one_trial = studied().of("q_n5")
    assert budget.cut(one_trial, "tokens", 29) is None
    assert list(budget.cut(one_trial, "tokens", 30)) == [0.6, 0.8, 0.4]


def test_the_table_by_hand():
    costly = episodes("likely_n10", [0.5, 0.7, 0.3], 31, 3)
    table = budget.reckoned(studied(costly), 100).set_index("arm")
    search = table.loc["search"]
    assert search["reward"] == pytest.approx(0.6) and search["minus"] == pytest.approx(0.0)
    # At Q's 30 tokens: a limit of 35 leaves 20 + 35 + 35; of 0.4, 1 and 0 the mean is 1.4 / 3.
    assert search["reward_tokens"] == pytest.approx(1.4 / 3)
    assert search["minus_tokens"] == pytest.approx(0.6 - 1.4 / 3)
    # At Q's three steps: 2 + 3.5 + 3.5.
    assert search["reward_steps"] == pytest.approx(1.4 / 3)
    # One trial of three steps; not one for so few tokens.
    assert table.loc["reflexion_q", "minus_steps"] == pytest.approx(0.6 - 0.2)
    assert math.isnan(table.loc["reflexion_q", "minus_tokens"])
    assert table.loc["sample", "minus_tokens"] == pytest.approx(0.4)
    assert math.isnan(table.loc["q_n5", "minus"])
    assert math.isnan(table.loc["likely_n10", "minus_tokens"])
    assert table.loc["likely_n10", "minus_steps"] == pytest.approx(0.1)
    assert table.loc["search", "chosen"] == "as it is"


def test_a_curve_rises_and_ends_where_the_arm_ends():
    for arm, end in (("search", 60), ("reflexion_q", 3 * 120 / 3)):
        drawn = budget.curve(studied().of(arm), "tokens")
        assert drawn["reward"].is_monotonic_increasing and drawn["spent"].is_monotonic_increasing
        last = {"reward": pytest.approx(0.6), "spent": pytest.approx(end)}
        assert drawn.iloc[-1].to_dict() == last
    assert budget.curve(studied().of("sample"), "steps").to_dict("records") == [
        {"spent": 2.0, "reward": pytest.approx(0.2)}
    ]


@pytest.mark.parametrize(
    "given, arm, asked",
    [
        ({}, "q_n5", 2),
        ({}, "sample", 0),
        ({}, "tuned_policy", 0),
        ({}, "control_q_n5", 2),
        ({}, "foreign_q_n5", 2),
        ({}, "kind_only_n5", 0),
        ({"estimator": "agentrm"}, "q_n5", 1),
        ({"reflexion_trials": 3}, "reflexion_q", 2),
        ({"reflexion_trials": 3}, "reflexion", 0),
    ],
)
def test_how_many_models_value_the_candidates(given, arm, asked):
    params = make(given)
    assert models_asked(params.q_model.estimator, params.arm(arm)) == asked


# -- words ----------------------------------------------------------------------------------------


def row(arm, **minus):
    told = {"arm": arm, "reward": 0.4}
    for of in ("minus", "minus_tokens", "minus_steps"):
        mean = minus.get(of, np.nan)
        told |= {of: mean, f"{of}_low": mean - 0.05, f"{of}_high": mean + 0.05}
    return told


MAIN = row("q_n5") | {"reward": 0.5}


def test_only_what_an_interval_shows_is_said():
    rows = [
        MAIN,
        row("sample", minus=0.1, minus_tokens=0.1, minus_steps=0.1),
        row("rft", minus=0.02, minus_tokens=0.02, minus_steps=0.02),
        row("search", minus=-0.2, minus_tokens=0.3) | {"reward": 0.7},
    ]
    text = said.conclusion(rows)
    assert (
        "As they were played, Q of five earns more than `sample`, is not told from `rft` and earns "
        "less than `search`."
    ) in text
    assert "counted, Q of five earns more than `sample` and `search` and is not told from" in text
    assert "whatever was spent, have `search`" in text
    assert "Comparisons at 95 %: 8; of these 8 about 0.4" in text
    listed = said.at_one_budget(rows)
    assert "Not to be had for so little: `search`." in listed and listed.count("\n") == 1


def test_adverse_numbers_claim_nothing():
    rows = [MAIN, row("sample", minus=0.0, minus_tokens=0.0, minus_steps=-0.2)]
    text = said.conclusion(rows) + said.at_one_budget(rows)
    assert "earns more" not in text and "is not told from `sample`" in text
    assert "With as many steps in the environment, Q of five earns less than `sample`." in text


def test_an_end_of_a_row_is_told():
    tries = [
        SimpleNamespace(name="rft", change={"rft_lr": lr, "rft": True}) for lr in (1e-5, 1e-4, 1e-3)
    ]
    at_end = SimpleNamespace(chosen={"rft": tries[2]})
    assert said.ends(at_end, tries) == "At an end: `rft` (rft_lr)."
    inside = SimpleNamespace(chosen={"rft": tries[1]})
    assert said.ends(inside, tries) == "None was chosen at an end."


# -- the notebook ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_notebook_argues_from_the_numbers(tmp_path):
    from test_notebooks import shown

    from qvlib import runner

    made = sweep(tmp_path, name="baselines-tiny", wandb_mode="disabled")
    (tmp_path / "run.yml").write_text(yaml.safe_dump(made.given))
    runner.run(tmp_path / "run.yml", only=["01", "02", "03", "04", "05", "12"])
    results = resolve(made.run.results_dir) / "baselines-tiny"
    text = shown(results / "notebooks", "12_baselines")
    assert "As they were played, Q of five" in text and "Comparisons at 95 %" in text
    assert (results / "figures" / "baselines.png").stat().st_size > 1000
    table = pd.read_csv(results / "tables" / "baselines.csv")
    assert {*table["arm"]} == {"sample", "likely_n5", "q_n5", "rft", "best_of_n", "search"}
