"""How long a grid and a comparison take: every part by hand, from seconds of a made-up run."""

import json

import pytest
from needing import LENGTHS, finished

from qvlib.pipeline.params import make
from qvlib.tools import needs
from qvlib.tools.needs import baselines, comparison, grid, hours
from qvlib.tools.needs.gpu_memory import memory
from qvlib.tools.needs.hours import Part

TOKEN = 50 / 100_000  # seconds
SAMPLE, Q, Q10 = (
    (5 * 60 + 5 * 4) * TOKEN,
    (8 * 60 + 30 * 4) * TOKEN,
    (8 * 60 + 60 * 4) * TOKEN,  # twice the candidates
)
"""Seconds of an episode: prompts of 60 tokens, replies of 4."""
MODEL = 20 * 4 * 40 / 4 / 30  # 20 trees of 4 pairs; four models of 30 pairs were 40 s
FILE = {
    "demonstrations": 400,
    "clone_epochs": 1,
    "other_demonstrations": 0,
    "train_tasks": 20,
    "control_shuffles": 2,
    "trial_tasks": 50,
    "trial_n": 5,
    "test_tasks": 100,
}


@pytest.fixture
def results(tmp_path):
    """A finished run that tells its seconds, on two processors."""
    folder = finished(tmp_path)
    metrics = json.loads((folder / "metrics.json").read_text())
    manifest = json.loads((folder / "manifest.json").read_text())
    metrics["cost"] |= {
        "agent_seconds": 100.0,
        "q_model_seconds": 10.0,
        "control_seconds": 40.0,
        "episodes_seconds": 50.0,
        "evaluating_tokens": 10_000,
        "evaluating_prompt_tokens": 90_000,
    }
    manifest["machine"] = {"cpus": 2}
    manifest["parameters"] |= {
        "seeds": 1,
        "demonstrations": 200,
        "clone_epochs": 1,
        "control_shuffles": 3,
    }
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def written(tmp_path, name, text):
    path = tmp_path / f"{name}.yml"
    path.write_text(text)
    return str(path)


def by_part(parts):
    return {part.part: part for part in parts}


def test_the_pace_of_a_run(results):
    pace = needs.measured(results, make({})).pace
    assert pace.demonstration == 0.5 and pace.tree == 6.7 and pace.token == TOKEN
    assert pace.pair == pytest.approx(40 / 4 / 30)  # four models of 30 pairs, fitted side by side
    assert pace.epochs == 1 and pace.cpus == 2


def test_a_warm_start_tells_a_pace_and_a_given_agent_none(results):
    manifest = json.loads((results / "manifest.json").read_text())
    for given, told in (({"agent": "smollm2", "warm_start": True}, True), ({"agent": "x"}, False)):
        told_by = {**manifest, "parameters": manifest["parameters"] | given}
        (results / "manifest.json").write_text(json.dumps(told_by))
        assert (needs.measured(results, make({})).pace is not None) == told


def test_a_grid_tells_what_its_cells_add(results, tmp_path):
    """Of two chains; collecting, agents and models that cells share are paid once."""
    axes = """
the loss: {beta: [0.3]}
more: {train_tasks: [40]}
candidates: {trial_n: [10]}
longer: {dpo_epochs: [2]}
the agent: {clone_epochs: [2]}
"""
    params = make({**FILE, "grid": written(tmp_path, "grid", axes), "trial_chains": 2})
    run = needs.measured(results, params)
    own = by_part(hours.of_the_run(params, run, LENGTHS, run.pace))
    assert own["agents of the run"] == Part("agents of the run", 1, 400 * 0.5)
    assert own["its searches"] == Part("its searches", 20, pytest.approx(20 * 6.7))
    assert own["its Q models and controls"].count == 1 + 2
    assert own["its Q models and controls"].seconds == pytest.approx(3 * MODEL)
    parts = by_part(grid.parts(params, run, run.pace))
    # the second chain of the run's own cell, and both of the agent that is cloned twice as long
    agents = parts["agents of the grid's cells"]
    assert (agents.count, agents.seconds) == (3, 400 * 0.5 + 2 * 2 * 400 * 0.5)
    searches = parts["their searches"]
    assert searches.count == 20 + 2 * 40 + 2 * 20
    assert searches.seconds == pytest.approx(140 * 6.7)
    # of the run's cell one, of the loss, more (twice the trees), longer (twice) and the agent two
    models = parts["their Q models and controls"]
    assert models.count == 1 + 2 + 2 + 2 + 2
    assert models.seconds == pytest.approx((1 + 2 + 2 * 2 + 2 * 2 + 2) * MODEL)
    played = parts["their episodes on dev tasks"]
    assert played.count == 6 * 2 * 2 * 50
    assert played.seconds == pytest.approx(50 * (12 * SAMPLE + 10 * Q + 2 * Q10))
    total = sum(part.seconds for part in [*own.values(), *parts.values()])
    said = needs.report(params, run, LENGTHS)
    (row,) = (
        line for line in said.splitlines() if line.startswith("| in all") and line.count("|") == 4
    )
    assert row.split("|")[3].strip() == f"{total / 3600:.1f}"
    assert "| grid of ablations " in said and "hours of the grid of ablations: as results" in said


def test_twins_that_cells_share_are_played_once(results, tmp_path):
    """What is likeliest, and the oracle's choice, ask no Q model; controls are the run's alone."""
    file = written(tmp_path, "grid", "the loss: {beta: [0.3]}")
    params = make({**FILE, "grid": file, "trial_twins": True})
    run = needs.measured(results, params)
    parts = by_part(grid.parts(params, run, run.pace))
    assert parts["agents of the grid's cells"].count == parts["their searches"].count == 0
    assert parts["their Q models and controls"].count == 1
    # sample, Q, likeliest, oracle, foreign, control; of the other cell sample, Q, foreign
    played = parts["their episodes on dev tasks"]
    assert played.count == 50 * (6 + 3)
    assert played.seconds == pytest.approx(50 * (2 * SAMPLE + 7 * Q))


def test_a_cell_of_two_rounds_collects_twice_and_fits_between(results, tmp_path):
    params = make({**FILE, "grid": written(tmp_path, "grid", "rounds: {rounds: [2]}")})
    run = needs.measured(results, params)
    parts = by_part(grid.parts(params, run, run.pace))
    assert parts["their searches"].count == 20  # the first round's are the run's
    assert parts["their Q models and controls"].count == 1
    assert parts["their Q models and controls"].seconds == pytest.approx(2 * MODEL)


def test_pairs_of_a_cell_are_those_of_its_rule_where_the_run_tried_it(results, tmp_path):
    (results / "tables").mkdir()
    (results / "tables" / "pair_rules.csv").write_text(
        "rule,min visits,min margin,pairs,pairs a tree\nbest_path,0,0.0,120,12.0\n"
    )
    axis = "pairs: [{pairs: best_path, min_margin: 0.0, min_visits: 0}]"
    params = make({**FILE, "grid": written(tmp_path, "grid", axis)})
    run = needs.measured(results, params)
    found = by_part(grid.parts(params, run, run.pace))["their Q models and controls"]
    assert (found.count, found.seconds) == (1, pytest.approx(3 * MODEL))


COMPARED = "step_dpo: [{}, {beta: 0.3}]\nagentrm: [{}, {fit_lr: 0.1}]"


def test_a_comparison_of_estimators_tells_its_hours(results, tmp_path):
    file = written(tmp_path, "estimators", COMPARED)
    params = make({**FILE, "compare": file, "seeds": 3})
    run = needs.measured(results, params)
    own = by_part(hours.of_the_run(params, run, LENGTHS, run.pace))
    assert own["agents of the run"].seconds == pytest.approx(3 * 400 * 0.5)
    assert own["its searches"].seconds == pytest.approx(3 * 20 * 6.7)
    assert own["its Q models and controls"].seconds == pytest.approx(3 * 3 * MODEL)
    parts = by_part(comparison.parts(params, run, LENGTHS, run.pace))
    assert parts["searches of other settings"].count == 0
    tried = parts["models of the settings tried"]
    assert (tried.count, tried.seconds) == (4, pytest.approx(4 * MODEL))
    best = parts["models and controls of the best"]
    assert (best.count, best.seconds) == (2 * 9, pytest.approx(18 * MODEL))
    played = parts["their episodes on test tasks"]
    assert played.count == 100 * 2 * 3 * (4 + 2)
    assert played.seconds == pytest.approx(played.count * Q)
    dev = parts["their episodes on dev tasks"]
    assert dev.seconds == pytest.approx(4 * 50 * (Q + SAMPLE))
    # three chains of 2,000 pairs and 400 actions (4 steps of arm sample), read by two models or one
    read = {n: 2000 * (2 * n + 1) * (1000 + 2 * 10) + 400 * n * (1000 + 10) for n in (2, 1)}
    scored = parts["their scores of actions of test tasks"]
    assert scored.seconds == pytest.approx(3 * (read[2] + read[1]) * TOKEN)
    said = needs.report(params, run, LENGTHS)
    assert "comparison of estimators" in said and "hours of the comparison of est" in said
    known = {"one": {"cost": {"fit_seconds": 30.0}}, "two": {"cost": {"fit_seconds": 10.0}}}
    metrics = json.loads((results / "metrics.json").read_text())
    (results / "metrics.json").write_text(json.dumps({**metrics, "estimators": known}))
    again = needs.measured(results, params).pace
    assert again.pair == pytest.approx(20 / 2 / 30) and "its estimators" in again.fitted
    assert again.epochs == 0  # each by its own


def test_arms_at_one_budget_tell_their_hours(results, tmp_path):
    text = "sample: [{}]\nq_n5: [{}, {dpo_lr: 0.1}]\nrft: [{rft: true}, {rft: true, rft_lr: 0.1}]"
    params = make({**FILE, "baselines": written(tmp_path, "arms", text), "seeds": 3})
    run = needs.measured(results, params)
    parts = by_part(baselines.parts(params, run, LENGTHS, run.pace))
    assert parts["searches of other settings"].count == 0
    # The run's own Q models are fitted with it; the other try's is fitted in the first chain.
    tried = parts["models of the settings tried"]
    assert (tried.count, tried.seconds) == (1, pytest.approx(MODEL))
    # RFT of both rates in the first chain, of the one that is played in two more.
    tuned = parts["agents tuned"]
    assert (tuned.count, tuned.seconds) == (4, pytest.approx(4 * MODEL))
    dev, test = parts["their episodes on dev tasks"], parts["their episodes on test tasks"]
    assert (dev.count, test.count) == (5 * 50, 3 * 3 * 100)
    # Prompts and replies a task of arms sample and q_n5, as long as this file's; RFT samples once.
    sample, q = (5 * 1000 + 5 * 50) * TOKEN, (8 * 1000 + 30 * 50) * TOKEN
    assert dev.seconds == pytest.approx(50 * (3 * sample + 2 * q))
    assert test.seconds == pytest.approx(300 * (2 * sample + q))
    said = needs.report(params, run, LENGTHS)
    assert "arms at one budget" in said and "agents tuned" in said


def test_the_published_discount_is_searched_for_by_itself(results, tmp_path):
    """Beside the run's trees, in each chain once."""
    file = written(tmp_path, "estimators", "published: [{}]\nagentrm: [{}]\n")
    params = make({**FILE, "compare": file, "seeds": 2, "discount": 0.9})
    run = needs.measured(results, params)
    parts = by_part(comparison.parts(params, run, LENGTHS, run.pace))
    assert parts["searches of other settings"].count == 2 * 20
    rows = {row.part: row for row in comparison.tokens(params, run, LENGTHS)}
    # 40 prompts and 70 replies of a tree
    assert rows["searches of other settings"].prompts == 2 * 20 * 40
    assert rows["searches of other settings"].completion == 2 * 20 * 70 * 50


def test_a_comparison_tells_its_tokens_by_what_each_estimator_reads(results, tmp_path):
    """For a machine whose speeds are given, such as a GPU."""
    file = written(tmp_path, "estimators", "step_dpo: [{}]\nagentrm: [{features: frozen}]")
    params = make({**FILE, "compare": file, "seeds": 2})
    run = needs.measured(results, params)
    rows = {row.part: row for row in comparison.tokens(params, run, LENGTHS)}
    pairs, features = 20 * 4 * (1000 + 20) * 4, 20 * 30 * 1010
    assert rows["models of settings tried"].q == pytest.approx(pairs + features)  # one chain
    assert rows["models of the best"].q == pytest.approx(2 * (3 * pairs + features))
    dev = rows["their episodes on dev tasks"]
    assert dev.prompts == 2 * 50 * (5 + 8) and dev.completion == 2 * 50 * (5 + 30) * 50
    assert dev.q == 50 * (2 + 1) * (8 * 1000 + 30 * 10)
    test = rows["their episodes on test tasks"]
    assert test.tasks == 2 * 2 * 100 * (4 + 2) and test.q == (2 + 1) * 2 * 600 * 8300
    assert rows["their scores"].q > 0 and rows["searches of other settings"].prompts == 0
    told = needs.report(params, run, LENGTHS, 1000.0, 4000.0)
    seconds = (test.prompt + test.completion) / 1000 + test.q / 4000
    row, _ = (line for line in told.splitlines() if line.startswith("| their episodes on test"))
    assert row.split("|")[-2].strip() == f"{seconds / 3600:.1f}"


def test_memory_of_a_comparison_is_that_of_its_largest_training(results, tmp_path):
    file = written(tmp_path, "estimators", "step_dpo: [{}]\noreo: [{}]\ndigi_q: [{}]")
    params = make({**FILE, "compare": file})
    name, most = comparison.largest(params)
    assert name == "oreo" and most["training"] > 2 * memory(params)["training Q"]["training"]
    said = needs.report(params, needs.measured(results, params), LENGTHS)
    assert "| training oreo " in said and "| training Q " in said


def test_without_seconds_no_hours_are_told(tmp_path):
    (tmp_path / "run").mkdir()
    file = written(tmp_path, "estimators", "step_dpo: [{}]")
    grid_file = written(tmp_path, "grid", "the loss: {beta: [0.3]}")
    run = needs.measured(finished(tmp_path / "run"), make({}))
    assert run.pace is None
    for given in ({"compare": file}, {"grid": grid_file}):
        said = needs.report(make({**FILE, **given}), run, LENGTHS)
        assert "no hours: the run does not tell its seconds" in said
