"""Cells of a grid that are played together: the same episodes as alone, each with its own end."""

import shutil

import pandas as pd
import pytest
import yaml

from qvlib import pipeline
from qvlib.base.errors import QvlibError
from qvlib.pipeline import Context, grids, models, playing
from qvlib.pipeline.playing import play_all
from qvlib.pipeline.trials import trial_of
from qvlib.runs.stage import is_complete, read_stage, stage_path

GRID = {"beta": {"beta": [0.3]}, "candidates": {"trial_n": [2]}}


@pytest.fixture(scope="module")
def fitted(undisturbed, tmp_path_factory):
    """A tiny run and two cells of a grid, ready to be tried."""
    folder = tmp_path_factory.mktemp("fitted")
    shutil.copytree(undisturbed.run.runs_dir, folder / "runs")
    (folder / "grid.yml").write_text(yaml.safe_dump(GRID))
    params = undisturbed.replace(
        runs_dir=str(folder / "runs"), grid=str(folder / "grid.yml"), trial_tasks=6, trial_n=3
    )
    for cell in grids.read(params):
        pipeline.train_q(cell.params)
    return params


@pytest.fixture
def cells(fitted, tmp_path):
    """The parameters of each cell, in a folder of its own."""
    shutil.copytree(fitted.run.runs_dir, tmp_path / "runs")
    params = fitted.replace(runs_dir=str(tmp_path / "runs"))
    return [cell.params for cell in grids.read(params)]


def played(params):
    rows = read_stage(params, "trial").table("episodes")
    return rows.sort_values(["arm", "task"], ignore_index=True)


def raising(play, message):
    raise AssertionError(message)


@pytest.mark.parametrize("processes", [1, 2])
def test_cells_that_are_played_together_play_what_each_would_alone(cells, tmp_path, processes):
    alone = [cell.replace(runs_dir=str(tmp_path / "alone")) for cell in cells]
    shutil.copytree(tmp_path / "runs", tmp_path / "alone")
    for cell in alone:
        pipeline.try_cell(cell)
    finished = []
    together = [cell.replace(processes=processes) for cell in cells]
    play_all([trial_of(Context(cell)) for cell in together], raising, finished.append)
    assert [play.context.params for play in finished] == together
    for cell, other in zip(together, alone, strict=True):
        pd.testing.assert_frame_equal(played(cell), played(other))
    finished.clear()
    play_all([trial_of(Context(cell)) for cell in together], raising, finished.append)
    assert len(finished) == len(cells)  # they are told of, not played again


def test_the_agent_of_cells_that_share_it_is_loaded_once_and_no_other_model_stays(
    cells, monkeypatch
):
    loaded = []
    load = models.load_of_stage
    monkeypatch.setattr(
        models,
        "load_of_stage",
        lambda context, *which: loaded.append(context.params) or load(context, *which),
    )
    contexts = [Context(cell.replace(processes=1)) for cell in cells]
    play_all(map(trial_of, contexts), raising)
    assert loaded == [contexts[0].params]
    assert [bool(context._models) for context in contexts] == [False, False, True]
    assert contexts[0].environment is contexts[2].environment


def test_another_agent_or_another_world_is_not_taken_over(cells):
    first = Context(cells[0])
    model, environment = first.model(), first.environment
    other = Context(cells[0].replace(top_p=0.5))
    other.take_over(first)
    assert other._models == {} == first._models and other.environment is environment
    again = Context(cells[0])
    again._models[("agent", "")] = model
    elsewhere = Context(cells[0].replace(seed=7))
    elsewhere.take_over(again)
    assert elsewhere._models == {} and "environment" not in vars(elsewhere)
    again.take_over(again)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_cell_whose_model_is_gone_fails_alone(cells, processes):
    together = [cell.replace(processes=processes) for cell in cells]
    shutil.rmtree(stage_path(together[1], "q_model") / "model")
    told, finished = {}, []
    play_all(
        [trial_of(Context(cell)) for cell in together],
        lambda play, message: told.setdefault(play.context.params, []).append(message),
        finished.append,
    )
    assert list(told) == [together[1]] and len(told[together[1]]) == 1
    assert "is gone since" in told[together[1]][0]
    assert [play.context.params for play in finished] == [together[0], together[2]]
    assert [is_complete(cell, "trial") for cell in together] == [True, False, True]


def test_a_grid_tells_a_cell_that_cannot_be_played(cells, monkeypatch):
    def broken(context, stages):
        if context.params.estimator.beta == 0.3:
            raise QvlibError("no such task")
        return trial_of(context, stages)

    monkeypatch.setattr(grids, "trial_of", broken)
    table = grids.run(cells[0])
    assert list(table["failed"]) == ["", "no such task", ""]


def test_a_stage_that_cannot_be_opened_fails_alone(cells):
    stage = stage_path(cells[1], "trial")
    stage.mkdir()
    (stage / "manifest.json").write_text("{")
    told = []
    play_all(
        [trial_of(Context(cell)) for cell in cells], lambda play, why: told.append((play, why))
    )
    assert [play.context.params for play, _ in told] == [cells[1]]
    assert [is_complete(cell, "trial") for cell in (cells[0], cells[2])] == [True, True]


def test_what_was_played_before_a_stop_is_not_played_again(cells, tmp_path, monkeypatch):
    alone = [cell.replace(runs_dir=str(tmp_path / "alone")) for cell in cells]
    shutil.copytree(tmp_path / "runs", tmp_path / "alone")
    for cell in alone:
        pipeline.try_cell(cell)
    whole, lockstep, steps = [c.replace(processes=1) for c in cells], playing.lockstep, []

    def stopped(jobs, *how):
        for record in lockstep(jobs, *how):
            steps.append(record)
            yield record
            if len(steps) == 17:  # of 12 a cell
                raise KeyboardInterrupt

    monkeypatch.setattr(playing, "lockstep", stopped)
    with pytest.raises(KeyboardInterrupt):
        play_all([trial_of(Context(cell)) for cell in whole], raising)
    assert [is_complete(cell, "trial") for cell in whole] == [True, False, False]
    play_all([trial_of(Context(cell)) for cell in whole], raising)
    assert len(steps) == 36
    for cell, other in zip(whole, alone, strict=True):
        pd.testing.assert_frame_equal(played(cell), played(other))


def test_what_cells_share_is_played_once_also_where_the_first_of_them_fails(cells):
    stages = ("trial", "trial/likely")
    first, second = (cell.replace(processes=1) for cell in cells[:2])
    shared = stage_path(first, stages[1])
    assert shared == stage_path(second, stages[1])
    shutil.rmtree(stage_path(first, "q_model") / "model")
    told, finished = [], []
    play_all(
        [trial_of(Context(cell), stages) for cell in (first, second)],
        lambda play, message: told.append(play.context.params),
        lambda play: finished.append(play.context.params),
    )
    assert told == [first] and finished == [second]
    assert [is_complete(second, stage) for stage in stages] == [True, True]
    assert len(read_stage(second, stages[1]).table("episodes")) == 6


def test_what_cells_share_is_in_the_folder_of_each(cells):
    stages = ("trial", "trial/likely", "trial/foreign")
    together = [cell.replace(processes=2) for cell in cells]
    finished = []
    play_all([trial_of(Context(cell), stages) for cell in together], raising, finished.append)
    assert len(finished) == 3
    for cell in together:
        assert all(is_complete(cell, stage) for stage in stages)
