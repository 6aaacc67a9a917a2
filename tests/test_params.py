"""Parameters: the files in params/, what is refused, what names a stage's folder."""

import itertools
import linecache
import pickle
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from qvlib.agents.arms import arms_of
from qvlib.agents.twins import TWINS
from qvlib.base.errors import QvlibError
from qvlib.base.settings import Settings, setting
from qvlib.cli import main, params_table, parse_value
from qvlib.environments import WORLDS
from qvlib.estimators import step_dpo
from qvlib.pipeline.notebook import notebook_parameters
from qvlib.pipeline.params import EPISODES, STAGES, TRIAL, Params, load, make

FOLDER = Path(__file__).parents[1] / "params"
PAPER = sorted((FOLDER / "paper").glob("*.yml"))
FILES = [*sorted(FOLDER.glob("*.yml")), *PAPER]


class OtherEstimatorSettings(Settings):
    stage = "q_model"

    depth: int = setting(3, "something of its own", ge=1)


OTHER_ESTIMATOR = replace(
    step_dpo.ESTIMATOR, name="test_params:OTHER_ESTIMATOR", settings=OtherEstimatorSettings
)


def digests(params: Params) -> dict[str, str]:
    """The digest of every stage, played or not."""
    played = [f"{EPISODES}{arm.name}" for arm in arms_of()]
    return {stage: params.digest(stage) for stage in (*STAGES, *played)}


def changed(**changes) -> set[str]:
    """The stages whose digest is another than with the defaults."""
    base, other = digests(make({})), digests(make(changes))
    return {stage for stage, digest in base.items() if other[stage] != digest}


def test_quick_is_the_defaults_and_complete():
    path = next(p for p in FILES if p.name == "quick.yml")
    params = load(path)
    assert params == make({}) and params.fingerprint() == make({}).fingerprint()
    # The world's own settings are left to the world, so that another takes its own defaults.
    left_out = {*params.world.names()} - {"environment"}
    assert set(yaml.safe_load(path.read_text())) == set(params.flat()) - left_out


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_files_are_valid_commented_and_named_as_their_results(path):
    assert load(path).run.name == path.stem
    assert uncommented(path.read_text()) == []


def uncommented(text: str) -> list[str]:
    """The lines with neither a comment in them nor one of their own above, below the heading."""
    found, above = [], 0
    for before, line in itertools.pairwise(["", *text.splitlines()]):
        if line.startswith("# "):
            above += bool(before)  # the first after an empty line is the heading of a section
            continue
        if line and "# " not in line and not above:
            found.append(line)
        above = 0
    return found


def test_a_parameter_without_a_comment_is_seen():
    text = "# The run\nname: a\n# how many\n# of them\nseeds: 1\nseed: 0  # a seed\ndevice: cpu\n"
    assert uncommented(text) == ["name: a", "device: cpu"]


@pytest.mark.parametrize("path", PAPER, ids=lambda p: p.stem)
def test_each_value_of_the_papers_files_tells_where_it_is_from(path):
    values = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    for line in values:
        said = re.search(r"\((P|S|C|ours|\?)(?![a-z])", line.split(" # ", 1)[1])
        assert said and len(line) <= 140, f"{path.name}: whose value? {line}"
    assert len(values) == len(yaml.safe_load(path.read_text()))


def test_the_papers_files_are_each_agent_on_each_world():
    assert len(PAPER) == 8
    for world, agents in (("webshop", 4), ("hotpotqa", 4)):
        files = {
            path.stem.removeprefix(f"{world}-"): load(path)
            for path in PAPER
            if path.stem.startswith(world)
        }
        assert len(files) == agents and {params.world.environment for params in files.values()} == {
            world
        }
        assert {params.q_model.q_base for params in files.values()} == {"microsoft/phi-1_5"}
        # GPT-4-turbo is reranked by the Q model of Phi-3's trees: those stages are the same work.
        assert files["gpt-4-turbo"].digest("q_model") == files["phi3-mini"].digest("q_model")


@pytest.mark.parametrize(
    "text, message",
    [
        ("iteratoins: 3", "did you mean 'iterations'"),
        ("beta: 1e-6", "write 1.0e-06"),
        ("iterations: 3.5", "'iterations'"),
        ("iterations: 0", "greater than or equal to 1"),
        ("uct: median", "'uct'"),
        ("filter_actions: 1", "'filter_actions'"),
        ("device: gpu", "'device'"),
        ("agent_heads: 5", "'agent_width': 96 is no multiple of twice agent_heads = 5"),
        ("other_width: 100\nother_demonstrations: 9", "'other_width'"),
        ("q_base: small", "'q_base': small cannot be tuned"),
        ("estimator: llm_value", "'estimator': llm_value asks a model in words, and the small"),
        ("q_base: api:gpt", "'q_base': api:gpt cannot be tuned"),
        ("prior_weight: 0.5\nagent: api:gpt", "'prior_weight': an agent behind a server"),
        ("- iterations", "flat list"),
        ("iterations: [", "not YAML"),
    ],
)
def test_bad_files_are_refused_in_one_line(tmp_path, text, message):
    path = tmp_path / "bad.yml"
    path.write_text(text)
    with pytest.raises(QvlibError) as caught:
        load(path)
    assert (
        message in str(caught.value)
        and str(path) in str(caught.value)
        and "\n" not in str(caught.value)
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"api_key_variable": "gsk_s3cret"},
        {"api_key_variable": "sk-s3cret"},
        {"api_base_url": "http://me:s3cret@host/v1"},
        {"api_base_url": "http://host/v1?key=s3cret"},
        {"api_base_url": "s3cret"},
    ],
)
def test_a_key_in_the_wrong_place_is_not_shown(wrong):
    with pytest.raises(QvlibError) as caught:
        make(wrong)
    assert next(iter(wrong)) in str(caught.value) and "s3cret" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(QvlibError, match=r"no/such\.yml"):
        load("no/such.yml")
    with pytest.raises(QvlibError, match="cannot be read: Is a directory; give a parameter file"):
        load(tmp_path)


def test_a_whole_number_is_taken_for_a_float():
    assert make({"exploration": 2}).search.exploration == 2.0


@pytest.mark.parametrize(
    "values, message",
    [
        (
            {"environment": "textworld", "catalogue_products": 300},
            "'catalogue_products' belongs to environment webshop and hotpotqa, and environment is "
            "textworld; leave it out",
        ),
        (
            {"game_count": 3},
            "'game_count' belongs to environment textworld and scienceworld, and environment is "
            "webshop; leave it out",
        ),
        (
            {"estimator": "test_params:OTHER_ESTIMATOR", "beta": 0.2},
            "'beta' belongs to estimator step_dpo and trajectory_dpo",
        ),
    ],
)
def test_settings_of_what_is_not_chosen_are_refused(values, message):
    with pytest.raises(QvlibError) as caught:
        make(values)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_another_world_brings_its_own_defaults():
    """quick with another environment alone is a run of that world."""
    quick = load(FOLDER / "quick.yml")
    for params in (
        load(FOLDER / "quick.yml", environment="hotpotqa"),
        quick.replace(environment="hotpotqa"),
    ):
        assert params.world.environment == "hotpotqa"
        assert (params.world.max_steps, params.world.timeout_value) == (7, -1.0)
        assert params.world == make({"environment": "hotpotqa"}).world
    assert (quick.world.max_steps, quick.world.timeout_value) == (10, -0.5)


def test_a_change_of_world_drops_what_only_the_old_one_has():
    here = make({"observation_mode": "text_rich", "catalogue_products": 300, "iterations": 7})
    there = here.replace(environment="hotpotqa")
    assert "observation_mode" not in there.flat() and there.search.iterations == 7
    assert there.world.catalogue_products == 300  # which both have, and someone has set
    assert here.replace(environment="textworld").flat().keys().isdisjoint({"catalogue_products"})
    with pytest.raises(QvlibError, match="'observation_mode' belongs to environment webshop, and"):
        here.replace(environment="hotpotqa", observation_mode="text")


def test_a_change_of_estimator_drops_what_only_the_old_one_has():
    other = make({"beta": 0.2, "iterations": 7}).replace(estimator="test_params:OTHER_ESTIMATOR")
    assert "beta" not in other.flat() and other.estimator.depth == 3
    assert other.search.iterations == 7 and other.replace(depth=4).estimator.depth == 4


def test_only_the_chosen_worlds_and_estimators_settings_enter_digests():
    for world in WORLDS:
        params = make({"environment": world})
        decided = params.deciding("q_model")
        assert set(decided["data"]) == {
            name for name in params.world.names() if "data" in params.world.decides(name)
        }
        fitted = set(step_dpo.StepDPOSettings.names()) - {"score_rule"}  # that is of scores alone
        assert set(decided["q_model"]) == {"estimator", "q_base", *fitted}
    other = make({"estimator": "test_params:OTHER_ESTIMATOR"})
    own = {"depth", "test_params.py sha256"}  # one of one's own is another when it was edited
    assert set(other.stage_fields("q_model")) == {"estimator", "q_base"} | own
    assert other.digest("pairs") == make({}).digest("pairs")
    assert other.digest("q_model") != make({}).digest("q_model")


def test_parameters_survive_pickling():
    for values in (
        {"iterations": 7, "extra_arms": ["test_params:THINKING"], "think": 4},
        {"environment": "hotpotqa", "estimator": "test_params:OTHER_ESTIMATOR", "depth": 5},
    ):
        params = make(values)
        copy = pickle.loads(pickle.dumps(params))
        assert copy == params and hash(copy) == hash(params) and copy.flat() == params.flat()
        assert digests(copy) == digests(params) and copy.given == params.given
        assert copy != params.replace(seed=1)


def cell(*lines: str) -> str:
    return "\n".join(("# Parameters: change any", *lines))


def test_a_notebooks_parameters_are_what_its_parameters_cell_sets():
    def of(*history: str, **namespace) -> dict:
        return notebook_parameters({"In": ["", *history], **namespace}).given

    setting_up = cell("iterations = 7  # few", "device = 'cpu'")
    assert of(setting_up) == {"iterations": 7, "device": "cpu"}
    # What other cells left behind, whatever its name, is none: Run All works twice in one kernel.
    left = {"DEBUG": True, "iteratoins": 3, "batch_size": "many", "iterations": 99, "seed": -1}
    assert of("DEBUG = True", setting_up, "iterations = 99", **left) == of(setting_up)
    assert of(setting_up, "iterations = 99", setting_up, **left) == of(setting_up)
    # The last run cell counts, and only it.
    assert of(cell("seed = 1", "rounds = 2"), cell("seed = 5")) == {"seed": 5}
    # Values are computed as the cell did, from its own names and those of the kernel.
    assert of(cell("seed = 2", "seeds = seed + base"), base=3, seed=8) == {"seed": 2, "seeds": 5}
    assert of(cell("iterations: int = 4", "train_tasks = test_tasks = 9")) == {
        "iterations": 4,
        "train_tasks": 9,
        "test_tasks": 9,
    }


def test_papermills_cell_below_the_parameters_cell_counts():
    injected = "# Parameters\niterations = 3\nname = 'mine'\n"
    given = cell("iterations = 7", "seed = 1")
    history = ["", given, injected, "x = 1"]
    assert notebook_parameters({"In": history}).given == {
        "iterations": 3,
        "seed": 1,
        "name": "mine",
    }
    # Run All again: papermill's cell runs again too; the parameters cell alone is without it.
    assert notebook_parameters({"In": [*history, given, injected]}).search.iterations == 3
    assert notebook_parameters({"In": [*history, given]}).search.iterations == 7
    # A notebook whose own cell begins as papermill's does, or that has none.
    plain = "# Parameters\niterations = 7\nseed = 1"
    for before in ((), (plain, "iterations = 99")):
        assert notebook_parameters({"In": [*before, plain]}).given == {"iterations": 7, "seed": 1}
        assert notebook_parameters({"In": [*before, plain, injected, "x = 1"]}).given == {
            "iterations": 3,
            "seed": 1,
            "name": "mine",
        }


def test_a_wrong_parameters_cell_is_told_in_one_line():
    for history, message in (
        ([], "no parameters cell was run: run the cell that begins with '# Parameters'"),
        (["iterations = 7"], "no parameters cell was run"),
        ([cell("iteratoins = 7")], "notebook parameters: unknown parameter 'iteratoins'; did you"),
        ([cell("iterations = 'many'")], "parameter 'iterations'"),
        ([cell("iterations = 7", "print(iterations)")], "line 3 of the parameters cell is not"),
        ([cell("import os")], "line 2 of the parameters cell is not"),
        ([cell("iterations = 7", "iterations += 1")], "line 3 of the parameters cell is not"),
        ([cell("seed, seeds = 1, 2")], "line 2 of the parameters cell is not"),
        ([cell("if True:", "    seed = 1")], "line 2 of the parameters cell is not"),
        ([cell("iterations: int")], "line 2 of the parameters cell is not"),
    ):
        with pytest.raises(QvlibError) as caught:
            notebook_parameters({"In": history})
        assert message in str(caught.value) and "\n" not in str(caught.value)


ON_TEST = ("scored", "followed")
AFTER_TREES = {
    *("trees", "pairs", "q_model", "control", "critics", "rft", "eto", "rules", "trial"),
    *ON_TEST,
}
RERANKED = {
    *("q_n5", "q_n10", "control_q_n5", "control_q_n10", "other_agent_q_n5"),
    *("other_agent_foreign_q_n5", "saycan_n5", "beam", "best_first", "lats", "reflexion_q"),
    *(f"{name}_n{n}" for name in ("foreign_q", "kind_only", "within_kind") for n in (5, 10)),
}


def episodes(names) -> set[str]:
    return {f"{EPISODES}{name}" for name in names}


TUNED = episodes({"rft", "agent_evol"})
ETO = {"eto", f"{EPISODES}eto"}


def test_a_digest_changes_with_the_stage_and_all_after_it_only():
    after_pairs = episodes({*RERANKED, "tuned_policy"})
    assert changed(iterations=7) == {*AFTER_TREES, *after_pairs, *TUNED, *ETO}
    assert changed(dpo_epochs=7) == {
        *("q_model", "control", "critics", "rules", "trial", *ON_TEST),
        *after_pairs,
    }
    assert not changed(batch_size=3, runs_dir="x", device="cuda", bootstrap=200, processes=3)
    other = episodes({"other_agent_sample", "other_agent_q_n5", "other_agent_foreign_q_n5"})
    assert changed(other_width=48) == {"other_agent", *other}
    assert "other_agent" in changed(agent_layers=1)
    assert changed(seed=1) == changed(max_steps=3) - {"data"} == set(digests(make({}))) - {"data"}


def test_an_arm_is_played_again_only_where_its_own_parameters_change():
    assert changed(rerank_temperature=0.5) == {"trial", *episodes(RERANKED)}
    assert changed(prior_weight=0.5) == {"trial", *episodes(RERANKED)}
    assert changed(score_rule="mean") == {"rules", "trial", *ON_TEST, *episodes(RERANKED)}
    assert changed(search_iterations=7) == {"scored", *episodes({"search"})}
    assert episodes({"search"}) <= changed(min_margin=0.3)  # its record holds pairs
    assert changed(best_of=5) == episodes({"best_of_n"})
    assert changed(reflexion_trials=3) == episodes({"reflexion", "reflexion_q"})
    own = {
        "self_consistency_n5": {"self_consistency": True},
        "saycan_n5": {"saycan_floor": 0.1},
        "beam": {"beam_n": 4},
        "best_first": {"best_first_n": 4, "best_first_step_cost": 0.1},
        "lats": {"lats_iterations": 3},
    }
    for arm, changes in own.items():
        assert changed(**changes) == episodes({arm})
    every_arm = episodes(arm.name for arm in arms_of())
    assert changed(test_skip=7) == {*ON_TEST, *every_arm}
    assert changed(top_p=0.8) == every_arm | AFTER_TREES
    # What steers a search steers the arm that searches.
    after_trees = AFTER_TREES | TUNED | ETO | episodes({"tuned_policy", *RERANKED})
    steerings = {
        "discount": 1.0,
        "timeout_value": -1.0,
        "uct": "published_code",
        "expand_at": "first_visit",
        "unvisited_value": "reward",
        "ended_leaves": "once",
        "refused_actions": "go_on",
        "wrong_end_value": -1.0,
        "final_backup": True,
    }
    for steering in ({name: value} for name, value in steerings.items()):
        assert changed(**steering) == after_trees | episodes({"search"})


def test_a_twin_of_a_cell_is_played_again_only_where_its_own_parameters_change():
    assert not changed(trial_chains=3, trial_twins=True, studies=["09_published"])

    def twins(**changes) -> set[str]:
        base, other = make({}), make(changes)
        names = [twin.name for twin in TWINS]
        return {n for n in names if base.digest(f"{TRIAL}{n}") != other.digest(f"{TRIAL}{n}")}

    every, of_q = {"likely", "oracle", "foreign", "control"}, {"foreign", "control"}
    for candidates in ({"trial_n": 3}, {"trial_tasks": 7}, {"trial_temperature": 0.5}):
        assert twins(**candidates) == every
    assert twins(top_p=0.8) == twins(clone_epochs=2) == twins(seed=1) == every
    for choice in ({"prior_weight": 0.5}, {"score_rule": "mean"}, {"dpo_epochs": 2}):
        assert twins(**choice) == of_q
    assert twins(train_tasks=7) == of_q and twins(control_shuffles=3) == {"control"}
    assert not twins(trial_chains=3, best_of=3, test_tasks=7)


class ThinkingSettings(Settings):
    stage = "episodes/thinking"

    think: int = setting(3, "something of its own", ge=1)


THINKING = replace(arms_of()[0], name="thinking", settings=ThinkingSettings)
THINKING_TWICE = replace(THINKING, says="the same name")


def test_a_new_arm_replays_no_other():
    base = make({})
    more = base.replace(extra_arms=["test_params:THINKING"])
    new = episodes({"thinking"})
    assert set(more.stages()) - set(base.stages()) == new
    assert {stage: more.digest(stage) for stage in base.stages()} == {
        stage: base.digest(stage) for stage in base.stages()
    }
    (stage,) = new
    assert more.stage_fields(stage)["think"] == 3
    assert more.replace(think=4).digest(stage) != more.digest(stage)
    with pytest.raises(QvlibError, match="two arms are called 'thinking'; rename one"):
        make({"extra_arms": ["test_params:THINKING", "test_params:THINKING_TWICE"]})
    with pytest.raises(QvlibError, match="unknown parameter 'think'"):
        base.replace(think=4)


class SeededSettings(Settings):
    stage = "episodes/seeded"

    seed: int = setting(5, "a seed of its own", ge=0)


SEEDED = replace(arms_of()[0], name="seeded", settings=SeededSettings)


def test_a_setting_of_ones_own_that_is_called_as_another_is_refused():
    """Else `seed` would be set there alone, and the run's left at its default."""
    with pytest.raises(QvlibError, match="run and seeded both have a setting 'seed'; rename"):
        make({"extra_arms": ["test_params:SEEDED"], "seed": 3})


def test_the_rule_of_scores_decides_the_trees_that_it_guides():
    first, second = make({"rounds": 1}), make({"rounds": 2})
    for params, guided in ((first, False), (second, True)):
        other = params.replace(score_rule="published_code")
        assert (params.digest("trees") != other.digest("trees")) is guided


def test_the_baseline_rft_decides_nothing_where_it_is_not_played():
    assert changed(rft=True) == {"rft", *TUNED}
    assert changed(rft_lr=1e-3, rft_epochs=7) == {"rft", *TUNED}
    base, tuned = make({}), make({"rft_lr": 1e-3, "rft_epochs": 7})
    assert base.fingerprint() == tuned.fingerprint()
    played = base.replace(rft=True)
    assert played.fingerprint() != tuned.replace(rft=True).fingerprint()
    assert played.digest("episodes/rft") != tuned.replace(rft=True).digest("episodes/rft")


def test_a_run_has_the_stages_that_it_makes():
    base = make({})
    assert {"rft", "episodes/rft"} <= set(make({"rft": True}).stages())
    assert {"rft", "episodes/rft", "rules", "trial"}.isdisjoint(base.stages())
    assert {"other_agent", "episodes/other_agent_sample"} <= set(base.stages())
    without = make({"other_demonstrations": 0}).stages()
    assert not [stage for stage in without if "other_agent" in stage]
    assert "rules" in make({"rule_tasks": 1}).stages()
    assert "trial" in make({"grid": "some.yml"}).stages()
    assert [arm.name for arm in base.arms()] == [
        stage.removeprefix(EPISODES) for stage in base.stages() if stage.startswith(EPISODES)
    ]


def test_overrides_take_the_type_of_their_parameter():
    assert parse_value("dpo_lr", "1e-5") == 1e-5  # YAML alone would read text
    assert parse_value("iterations", "7") == 7
    assert parse_value("name", "2024") == "2024"
    assert parse_value("filter_actions", "false") is False
    with pytest.raises(QvlibError, match="'iterations'"):
        make({"iterations": parse_value("iterations", "many")})


def test_the_table_shows_every_parameter_within_120_columns(capsys):
    params = make({"iterations": 7, "data_dir": "a/" * 60})
    table = params_table(params)
    assert max(map(len, table.splitlines())) <= 120
    listed = {line.split()[0] for line in table.splitlines() if line.strip()}
    assert set(params.flat()) <= listed
    row = next(line.split() for line in table.splitlines() if line.startswith("iterations "))
    assert row[1:3] == ["7", "30"]
    assert main(["params"]) == 0 and "catalogue_products" in capsys.readouterr().out


def test_of_a_file_only_the_settings_of_arms_that_it_plays_are_shown(tmp_path, capsys):
    def shown(text: str) -> set[str]:
        (tmp_path / "run.yml").write_text(text)
        assert main(["params", str(tmp_path / "run.yml")]) == 0
        return {line.split()[0] for line in capsys.readouterr().out.splitlines() if line.strip()}

    plain, with_rft = shown("iterations: 7"), shown("rft: true\nestimator: agentrm")
    assert {"rft", "eto", "best_of", "control_n10_shuffles", "beta"} <= plain
    assert plain.isdisjoint({"rft_lr", "eto_lr", "beam_n", "saycan_floor", "fit_lr"})
    assert {"rft_lr", "rft_rounds", "fit_lr"} <= with_rft and "eto_lr" not in with_rft


def test_the_command_line_lists_every_parameter_under_its_section(capsys):
    assert main(["params"]) == 0
    listed: dict[str, list[str]] = {}
    for line in capsys.readouterr().out.splitlines():
        if line.startswith("-- "):
            section = listed.setdefault(line.removeprefix("-- ").partition(":")[0], [])
        elif listed and line and not line.startswith(" "):
            section.append(line.split()[0])
    assert listed == {section: list(values.names()) for section, values in make({}).sections}
    assert {"run", "world", "search", "estimator", "best_of_n", "rft"} <= set(listed)


def test_the_command_line_reports_an_error_in_one_line(capsys):
    assert main(["params", "no/such.yml"]) == 2
    assert capsys.readouterr().err == "error: no/such.yml: no such parameter file; see params/\n"


def test_parameters_are_found_where_a_client_keeps_no_history(monkeypatch):
    cell = ["# Parameters: of a notebook that nbval runs\n", "seed = 7\n"]
    monkeypatch.setitem(linecache.cache, "a cell", (50, None, cell, "a cell"))
    assert notebook_parameters({"In": [""], "get_ipython": None}).run.seed == 7
    with pytest.raises(QvlibError, match="no parameters cell was run"):
        notebook_parameters({"In": [""]})


@pytest.mark.parametrize("name", ["full", "estimators", "best", "value-search", "hotpotqa-quick"])
def test_a_headline_is_played_on_things_that_no_other_run_was_judged_on(name):
    """By a catalogue of its own, or, in one that another run plays, by test_skip."""
    params = load(FOLDER / f"{name}.yml")
    catalogue = params.world.environment, params.world.catalogue_seed
    assert catalogue[1] > 0, "that of quick, by which settings were chosen"
    for path in FILES:
        other = load(path)
        same = (other.world.environment, getattr(other.world, "catalogue_seed", 0)) == catalogue
        if path.stem == name or not same or other.evaluation.test_skip > 0:
            continue
        left_out = other.evaluation.test_tasks <= params.evaluation.test_skip
        only_dev = bool(other.run.studies) and other.ablations.grid  # published*: cells on dev
        assert left_out or only_dev, path
