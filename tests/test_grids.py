"""Ablations: scoring rules and their controls, rounds, grids that go on where a cell fails."""

import shutil

import pandas as pd
import pytest
from killing import finished

from qvlib import pipeline
from qvlib.base.errors import QvlibError
from qvlib.core import preferences
from qvlib.pipeline import cells, grids
from qvlib.report import ablations, figures, numbers, sentences, siblings
from qvlib.runs.stage import read_stage, stage_path

GRID = """
# comments are welcome
beta: {beta: [0.3]}
candidates: {trial_n: [2]}
training tasks: [{train_tasks: 4}, {train_tasks: 100000}]
"""


@pytest.fixture(scope="module")
def params(undisturbed, tmp_path_factory):
    """A finished tiny run, and a grid for it."""
    folder = tmp_path_factory.mktemp("grid")
    shutil.copytree(undisturbed.run.runs_dir, folder / "runs")
    (folder / "grid.yml").write_text(GRID)
    return undisturbed.replace(
        runs_dir=str(folder / "runs"),
        grid=str(folder / "grid.yml"),
        trial_tasks=6,
        trial_n=3,
        rule_tasks=5,
        rule_n=3,
    )


def test_a_grid_is_tried_once_and_a_failed_cell_is_told(params, monkeypatch):
    table = grids.run(params)
    assert list(table["axis"]) == [
        "the run",
        "beta",
        "candidates",
        "training tasks",
        "training tasks",
    ]
    assert list(table["choice"])[1:] == [
        "beta 0.3",
        "trial_n 2",
        "train_tasks 4",
        "train_tasks 100000",
    ]
    assert "lower them" in table["failed"].iloc[-1] and (table["failed"].iloc[:-1] == "").all()
    assert table["change"].iloc[0] == 0 and table["tasks"].iloc[0] == 6
    assert (
        table["pairs"].iloc[0] == table["pairs"].iloc[2] > table["pairs"].iloc[3]
    )  # fewer trees, fewer pairs
    for row in table.iloc[:-1].to_dict("records"):
        assert row["gain_low"] <= row["gain"] <= row["gain_high"] and row["gain"] == pytest.approx(
            row["reward"] - row["sample"]
        )
    for step in ("make_chain_pairs", "try_cell"):
        monkeypatch.setattr(
            grids, step, lambda cell: pytest.fail("a finished cell was tried again")
        )
    kept, asked = finished(params), []
    monkeypatch.setattr(cells, "fit", lambda models, fail: asked.extend(models))
    pd.testing.assert_frame_equal(grids.run(params), table)
    assert asked == [] and finished(params) == kept
    text = sentences.grid(table.to_dict("records"))
    assert "Of 3 comparisons" in text and "train_tasks 100000" in text
    assert len(ablations.display_grid(table)) == 5
    (
        figures.grid_changes(table),
        figures.grid_curves(table, {"training tasks": ("train_tasks", "searched tasks (count)")}),
    )


def test_other_tasks_are_not_compared_and_without_the_runs_own_cell_nothing_changes(params):
    grids.run(params)
    cells = grids.read(params)
    table = grids.table(
        cells,
        50,
        {
            cells[0].params.digest("trial"): "no memory",
            cells[-1].params.digest("trial"): "lower them",
        },
    )
    assert table["change"].isna().all() and table["gain"].notna().sum() == 3
    text = sentences.grid(table.to_dict("records"))
    assert "Of 0 comparisons" in text and "the run: as it is (no memory)" in text
    figures.grid_changes(table), ablations.display_grid(table)
    fewer = grids.Cell("tasks", "trial_tasks 3", params.replace(**{"trial_tasks": 3}))
    pipeline.try_cell(fewer.params)
    assert "not the run's" in grids.table([cells[0], fewer], 50)["failed"].iloc[1]


def test_a_cell_may_have_another_agent(params, tmp_path):
    path = tmp_path / "agents.yml"
    path.write_text("width: {agent_width: [32]}\n")
    narrow = params.replace(**{"grid": str(path)})
    assert list(grids.run(narrow)["failed"]) == ["", ""]
    agents = [read_stage(cell.params, "agent") for cell in grids.read(narrow)]
    assert agents[0].facts["parameters"] > agents[1].facts["parameters"]


def test_cells_share_what_they_have_in_common(params):
    cells = grids.read(params)
    run, beta, candidates, fewer, _ = (cell.params for cell in cells)
    assert run.digest("q_model") == candidates.digest("q_model") != beta.digest("q_model")
    assert run.digest("pairs") == beta.digest("pairs") != fewer.digest("pairs")
    assert run.digest("agent") == fewer.digest("agent")
    assert len({cell.params.digest("trial") for cell in cells}) == 5


@pytest.mark.parametrize(
    "text, message",
    [
        (None, "no such grid"),
        ("[1, 2]", "mapping of axes"),
        ("beta: 3", "axis 'beta' is neither"),
        ("a: [3]", "axis 'a' is neither"),
        ("a: {betta: [1.0]}", "did you mean 'beta'"),
        ("a: {beta: [-1.0]}", "'beta'"),
        ("a: [", "not YAML"),
    ],
)
def test_bad_grids_are_refused(params, tmp_path, text, message):
    path = tmp_path / "grid.yml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(QvlibError) as caught:
        grids.read(params.replace(**{"grid": str(path)}))
    assert (
        message in str(caught.value)
        and str(path) in str(caught.value)
        and "\n" not in str(caught.value)
    )


def test_the_grid_of_the_project_is_sound():
    from qvlib.base.paths import resolve
    from qvlib.pipeline.params import load

    cells = grids.read(load(resolve("params/ablations.yml")))
    assert len({cell.params.digest("trial") for cell in cells}) == len(cells) > 20


def test_every_scoring_rule_has_its_control_and_its_twin(params):
    table = ablations.rule_table(params)
    assert list(table["rule"]) == [rule.name for rule in pipeline.RULES]
    assert set(table["verdict"]) <= {"reranking", "Q as a policy", "no gain shown"}
    played = pd.read_parquet(stage_path(params, "rules") / "episodes.parquet")
    assert (
        set(played["arm"]) == set(pipeline.rule_names(params))
        and played.groupby("arm").size().eq(5).all()
    )
    dev = {t.id for t in pipeline.context_of(params).environment.tasks("dev")}
    assert set(played["task"]) <= dev  # a rule is chosen here, so no test task is touched
    means = played.assign(reward=played["reward"]).groupby("arm")["reward"].mean()
    row = table.set_index("rule").loc["argmax"]
    assert row["q_gain"] == pytest.approx(means["argmax:q"] - means["sample"])
    assert row["control_gain"] == pytest.approx(means["argmax:control/0"] - means["sample"])
    assert len(ablations.display_rules(table)) == len(table)
    figures.rule_gains(table)


@pytest.mark.parametrize(
    "q_low, control_low, verdict",
    [
        (0.1, -0.1, "reranking"),
        (0.1, 0.01, "Q as a policy"),
        (-0.1, -0.1, "no gain shown"),
        (-0.1, 0.1, "Q as a policy"),
    ],
)
def test_what_fails_its_control_is_no_reranking(q_low, control_low, verdict):
    assert sentences.rule_verdict({"q_low": q_low, "control_low": control_low}) == verdict


def test_a_second_round_searches_new_tasks_guided_by_the_first(params):
    second = params.replace(**{"rounds": 2, "train_tasks": 3, "min_margin": 0.0})
    first = second.round_before()
    assert second.digest("trees") != first.digest("trees") and second.digest(
        "agent"
    ) == first.digest("agent")
    other = second.replace(beta=0.5)  # another Q model guides it, so its trees are others
    assert other.digest("trees") != second.digest("trees") and other.digest(
        "pairs"
    ) != second.digest("pairs")
    pipeline.collect(second)
    pipeline.make_pairs(second)
    new, old = (
        {t["task"] for t in read_stage(p, "trees").records("trees")} for p in (second, first)
    )
    assert len(new) == len(old) == 3 and not new & old
    assert {t["task"] for t in pipeline.load_trees(second)} == new | old
    assert read_stage(second, "pairs").facts["trees"] == 6
    assert max(len(t["nodes"]) for t in pipeline.load_trees(second)) > 1


def test_what_is_reported_is_of_all_rounds(params):
    second = params.replace(rounds=2, train_tasks=3, min_margin=0.0, name="second")
    for stage in (
        pipeline.train_agents,
        pipeline.collect,
        pipeline.make_pairs,
        pipeline.train_q,
        pipeline.play,
    ):
        stage(second)
    trees = pipeline.load_trees(second)
    assert numbers.metrics(second)["cost"]["collecting_tokens"] == sum(t["tokens"] for t in trees)
    assert (
        numbers.uses_table(pipeline.context_of(second)).set_index("used for").loc["search", "tasks"]
        == 6
    )
    made = numbers.stage_table(second)
    assert (made["stage"] == "trees").sum() == (made["stage"] == "q_model").sum() == 2 and made[
        "digest"
    ].is_unique
    assert {t["task"] for t in siblings.held_out_trees(second)} <= {t["task"] for t in trees}
    held = {
        p.task
        for p in preferences.hold_out(
            pipeline.load_pairs(second), second.pairs.heldout_share, second.run.seed
        )[1]
    }
    assert held <= {t["task"] for t in siblings.held_out_trees(second)}


def test_two_chains_are_pooled(params):
    both = params.replace(**{"seeds": 2, "name": "two"})
    for stage in (
        pipeline.train_agents,
        pipeline.collect,
        pipeline.make_pairs,
        pipeline.train_q,
        pipeline.play,
    ):
        made = stage(both)  # gives the first chain's; of the episodes a stage an arm
        for part in made if isinstance(made, list) else [made]:
            assert part.manifest["digest"] == params.digest(part.manifest["stage"])
    found, chains = numbers.metrics(both), [numbers.metrics(one) for one in both.each_seed()]
    assert found["seeds"] == [0, 1] and [row["seed"] for row in found["by_seed"]] == [0, 1]
    for arm, entry in found["arms"].items():
        each = [one["arms"][arm]["reward_mean"] for one in chains]
        assert (
            entry["reward_mean"] == pytest.approx(sum(each) / 2)
            and entry["tasks"] == 10
            and entry["seeds"] == [0, 1]
        )
    assert found["preferences"]["pairs"] == sum(one["preferences"]["pairs"] for one in chains)
    assert len(found["control_shuffles"]["control_q_n5"]) == 2
    assert found["cost"]["tokens"] == sum(one["cost"]["tokens"] for one in chains)
    assert "Seed by seed" in sentences.verdict(found) and "2 seeds" in sentences.limits(found)
    assert "Seed by seed" not in sentences.verdict(chains[0]) and "One seed" in sentences.limits(
        chains[0]
    )
