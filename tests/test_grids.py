"""Ablations: scoring rules and their controls, rounds, grids that go on where a cell fails."""

import shutil
from collections import Counter
from dataclasses import replace

import pandas as pd
import pytest
from killing import finished

from qvlib import pipeline
from qvlib.base.errors import QvlibError
from qvlib.base.paths import resolve
from qvlib.core import preferences
from qvlib.core.statistics import clustered
from qvlib.core.types import Request
from qvlib.pipeline import cells as making
from qvlib.pipeline import grids
from qvlib.pipeline.params import load
from qvlib.report import ablations, figures, numbers, regression, sentences, siblings
from qvlib.runs import stage as stages
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
    for step in ("make_chain_pairs", "trial_of"):
        monkeypatch.setattr(grids, step, lambda *_: pytest.fail("a finished cell was tried again"))
    kept, asked = finished(params), []
    monkeypatch.setattr(making, "fit", lambda models, fail: asked.extend(models))
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


TWO = "beta: {beta: [0.3]}\ncandidates: {trial_n: [2]}\n"


@pytest.fixture(scope="module")
def twice(params, tmp_path_factory):
    """A grid of two chains a cell, with twins."""
    path = tmp_path_factory.mktemp("twice") / "grid.yml"
    path.write_text(TWO)
    return params.replace(grid=str(path), trial_chains=2, trial_twins=True)


def test_each_chain_of_a_cell_has_a_seed_and_intervals_are_over_chains(twice):
    table, cells = grids.run(twice), grids.read(twice)
    assert [[c.run.seed for c in cell.chains()] for cell in cells] == [[0, 1]] * 3
    assert list(table["failed"]) == [""] * 3 and list(table["chains"]) == [2] * 3
    assert list(table["tasks"]) == [6] * 3
    played = [grids.rewards(cell) for cell in cells]
    for rows, row in zip(played, table.to_dict("records"), strict=True):
        assert len(rows) == 12
        assert row["reward"] == pytest.approx(rows["q"].mean())
        assert row["sample"] == pytest.approx(rows["sample"].mean())
        chain, groups = (rows.index.get_level_values(name) for name in ("chain", "group"))
        mean, half = clustered(rows["q"] - rows["sample"], groups, chain)
        assert row["gain"] == pytest.approx(mean)
        assert row["gain_high"] - row["gain_low"] == pytest.approx(2 * half)
    by_chain = played[0]["q"].groupby(level="chain").mean()
    alone = grids.table([replace(cells[0], params=cells[0].params.replace(trial_chains=1))], 50)
    assert alone["reward"].iloc[0] == pytest.approx(by_chain[0])
    facts = [read_stage(c, "q_model").facts for c in cells[1].chains()]
    assert table["pairs"].iloc[1] == pytest.approx(sum(f["pairs"] for f in facts) / 2)
    assert len(ablations.display_grid(table)) == 3
    assert "are too narrow" not in sentences.grid(table.to_dict("records"))


def test_the_time_of_cells_is_told_once_and_beside_the_runs_own(twice, monkeypatch):
    """Else a render that finds its stages again would tell too short a time."""
    grids.run(twice)
    cells, told = grids.read(twice), []
    monkeypatch.setattr(stages, "seconds_of", lambda of: told.extend(of) or 7.0)
    assert grids.seconds(twice) == 7.0
    keys = {(stage, made_with.digest(stage)) for made_with, stage in told}
    assert len(keys) == len(told)
    needed = {(s, c.digest(s)) for cell in cells for c in cell.chains() for s in cell.stages()}
    first, second = cells[0].chains()  # the run's own chain, and one that it has not
    own = {(s, first.digest(s)) for s in cells[0].stages()}
    assert needed - keys == own
    for stage in ("agent", "trees", "q_model"):
        assert (stage, first.digest(stage)) not in keys
        assert (stage, second.digest(stage)) in keys


def test_twins_choose_among_the_same_candidates(twice):
    table, cells = grids.run(twice), grids.read(twice)
    # Another Q model has no control; other candidates of the same one have.
    assert [cell.twins()[-1] for cell in cells] == ["control", "foreign", "control"]
    twins = ["likely", "oracle", "foreign", "control"]
    assert [twin for twin in twins if f"minus_{twin}" in table] == twins
    assert table["minus_control"].isna().tolist() == [False, True, False]
    for cell, row in zip(cells, table.to_dict("records"), strict=True):
        rows = grids.rewards(cell)
        for twin in cell.twins():
            assert row[twin] == pytest.approx(rows[twin].mean())
            assert row[f"minus_{twin}"] == pytest.approx((rows["q"] - rows[twin]).mean())
    for stage, shared in (("trial/likely", True), ("trial/oracle", True), ("trial/foreign", False)):
        run, beta, fewer = (cell.params.digest(stage) for cell in cells)
        assert (run == beta) is shared and run != fewer
    first = cells[0].params
    context = pipeline.context_of(first)
    players = pipeline.trials.trial_players(context, ["q", *cells[0].twins()])
    state = context.environment.reset(context.uses.dev[0])
    request = Request(state, 1, (0, state.task.id, "0"))
    seen = {}
    for name, player in players.items():
        (chosen,) = player.agent.propose([request])[0]
        seen[name] = chosen, [c.action for c in chosen.considered]
    assert len({tuple(actions) for _, actions in seen.values()}) == 1
    likely, considered = seen["likely"][0], seen["likely"][0].considered
    assert likely.log_prob == max(c.log_prob for c in considered)
    assert len(considered) == first.ablations.trial_n


def test_chains_and_twins_change_no_stage_that_was_there(twice, params):
    more, plain = twice.replace(seeds=1), params.replace(seeds=1, grid=twice.ablations.grid)
    stages = plain.stages()
    assert {s: more.digest(s) for s in stages} == {s: plain.digest(s) for s in stages}
    twins = {f"trial/{name}" for name in ("likely", "oracle", "foreign", "control")}
    assert set(more.stages()) - set(stages) == twins
    assert not twins & set(twice.replace(grid="").stages())


def test_a_chain_that_fails_fails_its_cell_alone(twice, monkeypatch):
    cells = grids.read(twice)
    broken = cells[1].chains()[1]
    table = grids.table(cells, 50, {broken.digest("trial"): "no memory"})
    assert list(table["failed"]) == ["", "seed 1: no memory", ""]
    both = {chain.digest("trial"): "no memory" for chain in cells[1].chains()}
    assert list(grids.table(cells, 50, both)["failed"]) == ["", "no memory", ""]
    three = replace(cells[1], params=cells[1].params.replace(trial_chains=1))
    assert "not the run's" in grids.table([cells[0], three], 50)["failed"].iloc[1]


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
        ("a: {batch_size: [8, 16]}", "axis 'a': batch_size is the whole run's; set it in the"),
        ("a: {trial_chains: [2]}", "trial_chains is the whole run's"),
        ("a: [{beta: 0.3, grid: x.yml}]", "grid is the whole run's"),
        ("a: [{compare: x.yml, beta: 0.3}]", "compare is the whole run's"),
        ("a: {rule_tasks: [9]}", "rule_tasks is the whole run's"),
        ("a: {trial_n: [2, 3]}", "axis 'a': trial_n 3 is what the run has; leave it out"),
        ("a: [{}]", "{} is what the run has"),
        ("a: {test_tasks: [3]}", "test_tasks 3 is what the run has"),
        ("a: {beta: [0.3, 0.3]}", "axis 'a': beta 0.3: the same settings twice"),
        ("a: [{beta: 0.3}, {beta: 0.3, test_tasks: 3}]", "test_tasks 3: the same settings twice"),
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


def test_two_axes_may_share_a_cell_and_a_seed_and_a_precision_are_choices(params, tmp_path):
    path = tmp_path / "grid.yml"
    path.write_text("a: {beta: [0.3]}\nb: {beta: [0.3, 0.5]}\nc: [{seed: 7}, {dtype: float32}]\n")
    cells = grids.read(params.replace(**{"grid": str(path)}))
    assert [cell.label for cell in cells[1:]] == [
        "beta 0.3", "beta 0.3", "beta 0.5", "seed 7", "dtype float32"
    ]  # fmt: skip


LARGE = ("ablations", "hotpotqa-quick", "published", "published-hotpotqa", "regression")


@pytest.mark.parametrize("file", [*LARGE, "webshop-small", "textworld", "textworld-coins"])
def test_the_grids_of_the_project_are_sound(file):
    cells = grids.read(load(resolve(f"params/{file}.yml")))
    assert len({cell.params.digest("trial") for cell in cells}) == len(cells)
    assert len(cells) > (15 if file in LARGE else 5)


def test_every_method_of_the_study_is_tried_alike():
    """As many rates of each, and under each condition all methods, or all that it concerns."""
    cells = grids.read(load(resolve("params/regression.yml")))
    tried: dict[str, list[str]] = {}
    for cell in cells[1:]:
        tried.setdefault(cell.axis, []).append(regression.method_of(cell.params))
    assert tried.pop(regression.AS_IT_IS) == [*regression.METHODS][1:]
    assert Counter(tried.pop(regression.TUNED)) == dict.fromkeys(regression.METHODS, 2)
    heads = [name for name, (kind, _) in regression.METHODS.items() if kind == regression.HEAD]
    assert tried.pop("random heads") == heads
    assert tried and all(names == [*regression.METHODS] for names in tried.values())
    told = (resolve("notebooks") / "10_dpo_or_regression.ipynb").read_text()
    assert all(f'two_by_two.crossed(told, \\"{axis}\\")' in told for axis in tried)


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
