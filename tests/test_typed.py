"""What people type into files, cells and commands: taken as meant, or told in one line."""

import contextlib
import datetime
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from qvlib import environments, estimators, pipeline
from qvlib.agents.arms import ARMS
from qvlib.base.errors import LONGEST, QvlibError
from qvlib.base.executors.processes import rank
from qvlib.base.settings import Settings, setting
from qvlib.base.yaml_text import DEEPEST, LARGEST, parse_yaml
from qvlib.cli import main, parse_value
from qvlib.environments import WorldSettings
from qvlib.pipeline import by_hand, grids
from qvlib.pipeline.notebook import notebook_parameters
from qvlib.pipeline.params import FIXED, load, make
from qvlib.pipeline.work import workers

ROOT = Path(__file__).parents[1]
SECTIONS = {
    *FIXED.values(),
    WorldSettings,
    *(environments.world_of(name).settings for name in environments.WORLDS),
    *(estimators.estimator_of(name).settings for name in estimators.ESTIMATORS),
    *(arm.settings for arm in ARMS if arm.settings is not None),
}


def refused(make_it) -> str:
    """The one line that a mistake is told in."""
    with pytest.raises(QvlibError) as caught:
        make_it()
    message = str(caught.value)
    assert "\n" not in message and len(message) <= LONGEST and message.isprintable()
    return message


@pytest.fixture
def file(tmp_path):
    """Writes a parameter file; gives a function that loads it."""

    def written(text):
        path = tmp_path / "mine.yml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return lambda: load(path)

    return written


@pytest.mark.parametrize(
    "text, message",
    [
        ("seed: 1\nrounds: 2\nseed: 2", "'seed' is set twice, in lines 1 and 3; keep one"),
        ("{seed: 1, seed: 1}", "'seed' is set twice, in lines 1 and 1"),
        ("api_extra:\n  stop: a\n  stop: b", "'stop' is set twice, in lines 2 and 3"),
        ("seed: 010", "line 1: 010 is 8 in YAML, to base 8; write 10"),
        ("\nseed: -0_17", "line 2: -0_17 is -15 in YAML, to base 8; write -17"),
        ("api_timeout: 1:30", "1:30 is 90 in YAML, to base 60; write the number"),
        ("api_timeout: 1:30.5", "1:30.5 is 90.5 in YAML, to base 60; write the number"),
        ("name: 1:30:00", "1:30:00 is 5400 in YAML"),
        ("seed: &a 1\nseeds: *a", "line 2: *a stands for another value; write that out"),
        ("name: !!python/name:os.system x", "the tag tag:yaml.org,2002:python/name:os.system;"),
        ("seed: !!int x", "the tag tag:yaml.org,2002:int; write the plain value"),
        ("name: 2024-13-45", "not YAML: month must be in 1..12"),
        ("? [seed]\n: 1", "not YAML: line 1: while constructing a mapping found"),
        ("seed: 1\n---\nseed: 2", "not YAML: line 2: expected a single document"),
        ("seed: 1\nname: [", "not YAML: line 2: while parsing a flow node"),
        (b"name: \xff\xfe\xfa", "not YAML"),
        ("name: a\x1b]0;b\x07", "not YAML"),
    ],
)
def test_what_yaml_would_take_for_something_else_is_refused(file, text, message):
    told = refused(file(text))
    assert message in told and "mine.yml" in told


def test_explicit_bases_and_zero_are_numbers():
    assert parse_yaml("[0, 0x10, 0b11, 1_000, -7, 1.5, 0.5, 08]", "x") == [
        0, 16, 3, 1000, -7, 1.5, 0.5, "08"
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text, hint",
    [
        ("train_tasks: 1e3", "write 1000: YAML reads 1e3 as text"),
        ("train_tasks: 1,000", "write 1000"),
        ("train_tasks: 1000.0", "write 1000"),
        ("seed: 08", "write 8"),
        ('seed: "1"', "drop the quotes"),
        ('seed: "3.0"', "write 3"),
        ('beta: "0.5"', "drop the quotes"),
        ('beta: "2"', "drop the quotes"),
        ("beta: 1e-6", "write 1.0e-06: YAML reads 1e-6 as text"),
        ("beta: 1.25e6", "write 1250000.0: YAML reads 1.25e6 as text"),
        ('filter_actions: "false"', "write true or false, without quotes"),
        ("filter_actions: 0", "write true or false"),
        ("name: 2024", "put it in quotes"),
        ("name: no", "put it in quotes"),
        ("name: 2024-01-31", "put it in quotes"),
        ("seed:", "leave the line out for the default"),
    ],
)
def test_a_hint_leads_to_what_is_taken(file, text, hint):
    """What the hint says to write is then accepted."""
    told = refused(file(text))
    assert f"({hint}" in told
    key, _, got = text.partition(":")
    mended = {
        "put it in quotes": f"{key}: '{got.strip()}'",
        "drop the quotes": f"{key}:{got}".replace('"', ""),
        "leave the line out for the default": "{}",
        "write true or false": f"{key}: false",
    }
    written = hint.removeprefix("write ").partition(":")[0]
    file(next((m for h, m in mended.items() if hint.startswith(h)), f"{key}: {written}"))()


@pytest.mark.parametrize("text", ["train_tasks: 3.5", "train_tasks: 1e-3", "temperature: inf"])
def test_no_hint_where_none_is_known(file, text):
    assert "(write" not in refused(file(text))


@pytest.mark.parametrize(
    "values, message",
    [
        ({"temperature": float("inf")}, "'temperature': Input should be a finite number"),
        ({"dpo_lr": float("inf")}, "'dpo_lr'"),
        ({"beta": float("nan")}, "'beta'"),
        ({"api_price_prompt": float("inf")}, "'api_price_prompt'"),
        ({"timeout_value": float("-inf")}, "'timeout_value'"),
        ({"prompt_tokens": 10**400}, "'prompt_tokens': Input should be less than or equal to"),
        ({"prompt_tokens": 10**5000}, "got a number of 16610 bits"),
        ({"prompt_tokens": -1}, "'prompt_tokens': Input should be greater than or equal to 64"),
        ({"seed": 2**63}, "'seed'"),
        ({"seeds": 10**9}, "'seeds'"),
        ({"rounds": 10**6}, "'rounds'"),
        ({"control_shuffles": 10**9}, "'control_shuffles'"),
        ({"api_timeout": 1e300}, "'api_timeout'"),
        ({"rerank_temperature": 1e-300}, "'rerank_temperature': 1e-300 is too low to divide by"),
        ({"trial_temperature": 1e-9}, "'trial_temperature': 1e-09 is too low"),
        ({"runs_dir": ""}, "'runs_dir'"),
        ({"runs_dir": " "}, "'runs_dir'"),
        ({"results_dir": ""}, "'results_dir'"),
        ({"name": "a" * 300}, "'name': String should have at most 100 characters"),
        ({"name": "a\n"}, "'name'"),
        ({"data_dir": "a\0b"}, "'data_dir': Input should be one line without control characters"),
        (
            {"data_dir": "a\u2028b"},
            "'data_dir': Input should be one line without control characters",
        ),
        ({"agent": "\x1b]0;gone\x07"}, "got '\\x1b]0;gone\\x07'"),
        ({"grid": "\ud800"}, "'grid'"),
        ({"wandb_project": "a\u202eb"}, "'wandb_project'"),
        ({"api_extra": {"top_k": float("nan")}}, "'api_extra': Input should hold what JSON has"),
        ({"api_extra": {"since": datetime.date(2024, 1, 1)}}, "'api_extra'"),
        ({"extra_arms": "test_params:THINKING"}, "'extra_arms': a list of names"),
        ({"extra_arms": [{}]}, "write [module:ARM]"),
        ({"extra_arms": None}, "write [module:ARM]"),
        ({"extra_arms": ["thinking"]}, "extra_arms 'thinking': one of your own is named module:"),
        ({"estimator": ":x"}, "estimator ':x': one of your own is named module:ATTRIBUTE"),
        ({"estimator": "..a:x"}, "estimator '..a:x'"),
        ({"estimator": "os:system"}, "estimator 'os:system': the module os is Python's own"),
        ({"environment": "os:system"}, "environment 'os:system': the module os is Python's own"),
        ({"environment": "a..b:c"}, "environment 'a..b:c'"),
        ({"environment": 7}, "a name, got 7"),
        ({"iterations\x1b[2J": 1}, "unknown parameter 'iterations\\x1b[2J'"),
    ],
)
def test_a_value_that_nothing_can_work_with_is_refused(values, message):
    assert message in refused(lambda: make(values))


@pytest.mark.parametrize(
    "text",
    [
        'api_key_variable: "sk-s3cret\\n"',
        "api_key_variable: |\n  sk-s3cret\n",
        "api_base_url: [http://me:s3cret@host]",
        "api_extra: {authorization: s3cret, top_k: .nan}",
        "api_extra: s3cret",
        'api_key_variable: "sk-s3cret',
        "api_key_variable: sk-s3cret: x",
    ],
)
def test_a_key_in_a_wrong_value_or_file_is_not_shown(file, text):
    assert "s3cret" not in refused(file(text))


def test_every_number_is_bounded_on_both_sides():
    """Of the sections here, and of one's own, which says no bounds."""

    class Own(Settings):
        count: int = setting(1, "something")
        weight: float = setting(0.5, "something")

    for section in (*SECTIONS, Own):
        for name, known in section.model_fields.items():
            if known.annotation in (int, float):
                limits = {
                    a for m in known.metadata for a in ("ge", "gt", "le", "lt") if hasattr(m, a)
                }
                assert limits & {"ge", "gt"} and limits & {"le", "lt"}, (section, name)
    for wrong in ({"count": 10**400}, {"count": -(10**400)}, {"weight": 1e39}):
        with pytest.raises(ValueError):
            Own(**wrong)


def test_what_is_deep_or_large_is_refused_at_once(file):
    """Also what would grow when it is read; and a line never holds all of it."""
    bomb = "a: &a [x, x]\n" + "".join(
        f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n"
        for a, b in zip("abcdefg", "bcdefgh", strict=True)
    )
    started = time.monotonic()
    for text, message in (
        (bomb, "*a stands for another value"),
        ("api_extra: " + "[" * 400 + "]" * 400, f"more than {DEEPEST} levels"),
        ("api_extra: " + "{a: " * 400 + "}" * 400, f"more than {DEEPEST} levels"),
        ("name: " + "x" * 2_000_000, f"over {LARGEST:,} bytes"),
        ("name: " + "x" * 100_000, "at most 100 characters, got 'xxxx"),
        ("? " + "x" * 100_000 + "\n: 1", "unknown parameter 'xxxx"),
        ("seed: " + "1" * 5000, "not YAML: Exceeds the limit"),
    ):
        assert message in refused(file(text))
    assert time.monotonic() - started < 5


def test_a_file_that_never_ends_is_refused():
    assert "over" in refused(lambda: load("/dev/zero"))


def cell(*lines: str) -> dict:
    """A kernel that has run a parameters cell of these lines."""
    namespace: dict = {}
    exec("import datetime, decimal\nfrom pathlib import Path\nimport numpy as np", namespace)
    return {**namespace, "In": ["", "\n".join(("# Parameters: change any", *lines))]}


def test_a_cells_values_are_as_a_file_would_have_them():
    for line, value in {
        'data_dir = Path("/no/such")': "/no/such",
        "seed = np.int64(7)": 7,
        "beta = np.float64(0.5)": 0.5,
        'top_p = decimal.Decimal("0.5")': 0.5,
        "filter_actions = np.bool_(False)": False,
        'agent = np.str_("smollm2")': "smollm2",
        "exploration = 2": 2.0,
        'extra_arms = ("test_params:THINKING",)': ["test_params:THINKING"],
    }.items():
        params = notebook_parameters(cell(line))
        name = line.partition(" ")[0]
        found = params.flat()[name]
        assert found == value and type(found) is type(value), line
        json.dumps(dict(params.given))
        assert params.changed({"seeds": 2}).each_seed()  # as the stages take it


@pytest.mark.parametrize(
    "line, message",
    [
        ("seed = datetime.date(2024, 1, 1)", "'seed': Input should be a valid integer"),
        ("name = datetime.date(2024, 1, 1)", "put it in quotes"),
        (
            'seed = decimal.Decimal("7")',
            "'seed': Input should be a valid integer, got 7.0 (write 7)",
        ),
        ('beta = decimal.Decimal("Infinity")', "'beta': Input should be a finite number"),
        ("seed = (1, 2)", "'seed': Input should be a valid integer, got (1, 2)"),
        ("seed = np.arange(3)", "'seed': Input should be a valid integer, got [0, 1, 2]"),
        ("beta = object()", "'beta'"),
        ('seed = Path("7")', "'seed': Input should be a valid integer"),
        ('data_dirr = Path("/no/such")', "unknown parameter 'data_dirr'; did you mean 'data_dir'"),
        ("seeed = np.int64(7)", "unknown parameter 'seeed'; did you mean 'seed'"),
        ("seed = 1\nrounds = 2\nseed = 3", "line 4 of the parameters cell sets seed again; keep"),
        ("seed = 1\n%time", "line 3 of the parameters cell is not `name = value`"),
        ("seed = 1\n!ls", "line 3 of the parameters cell is not `name = value`"),
    ],
)
def test_a_cells_other_values_are_refused_by_name(line, message):
    assert message in refused(lambda: notebook_parameters(cell(line)))


def test_a_cell_computes_with_its_own_names_and_papermills_paths_are_no_parameters():
    given = cell(
        "seeds = 2", 'extra_arms = [f"test_params:{x}" for x in ["THINKING"] * (seeds - 1)]'
    )
    assert notebook_parameters(given).evaluation.extra_arms == ("test_params:THINKING",)
    given = cell(
        "names = 1", 'extra_arms = [f"test_params:{name}" for name in ["THINKING"] if names]'
    )
    assert "unknown parameter 'names'" in refused(lambda: notebook_parameters(given))
    injected = '# Parameters\nseed = 3\nPAPERMILL_INPUT_PATH = "a"\nPAPERMILL_OUTPUT_PATH = "b"\n'
    assert notebook_parameters({"In": ["", "# Parameters: x\nseed = 1", injected]}).given == {
        "seed": 3
    }


def test_an_own_factory_must_take_the_settings(tmp_path, monkeypatch):
    (tmp_path / "own_typed.py").write_text("def make():\n    pass\ndef two(a, b):\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, why in (
        ("make", " of the settings alone"),
        ("two", " of the settings alone"),
        ("no", ""),
    ):
        told = refused(lambda name=name: make({"environment": f"own_typed:{name}"}))
        assert f"no function '{name}'{why}; write `def {name}(settings)`" in told


def test_settings_by_hand_are_told_as_parameters_are():
    told = refused(lambda: by_hand.make_environment(catalogue_products=3))
    assert "'catalogue_products': Input should be greater than or equal to 200, got 3" in told
    told = refused(lambda: by_hand.fit(None, None, (), beta=-1.0))
    assert "fit: parameter 'beta'" in told
    told = refused(lambda: by_hand.make_environment(catalog=300))
    assert told.startswith("make_environment: catalog: Extra inputs are not permitted")


def test_bad_grids_are_refused(tmp_path):
    path = tmp_path / "grid.yml"
    params = make({"grid": str(path)})
    for text, message in (
        ("beta: {beta: [0.3]}\nbeta: {beta: [0.1]}", "'beta' is set twice, in lines 1 and 2"),
        ("beta: {beta: [0.3], beta: [0.1]}", "'beta' is set twice"),
        ("beta: {beta: []}", "axis 'beta' is neither"),
        ("seed: {seed: [010]}", "010 is 8 in YAML"),
        ("a: &a [1]\nb: *a", "stands for another value"),
        ("a: {beta: [.inf]}", "'beta': Input should be a finite number"),
    ):
        path.write_text(text)
        assert message in refused(lambda: grids.read(params)), text


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["params", "{tmp}/twice.yml"], "'seed' is set twice"),
        (["run", "{tmp}/mine.yml", "-p", "seed", "010"], "-p seed, line 1: 010 is 8 in YAML"),
        (["run", "{tmp}/mine.yml", "-p", "seed", "1", "-p", "seed", "2"], "-p seed is given twice"),
        (["run", "{tmp}/mine.yml", "-p", "temperature", "inf"], "finite number"),
        (["run", "{tmp}/mine.yml", "-p", "beta", "nan"], "finite number"),
        (["run", "{tmp}/mine.yml", "-p", "api_extra", "{a: *b}"], "*b stands for another value"),
        (["run", "{tmp}/mine.yml", "--only", ""], "no notebook ''"),
        (["run", "~no-such-user/a.yml"], "~no-such-user is no user here; write the folder out"),
        (["index", "{tmp}/TYPO"], "TYPO: no such results folder"),
        (["index", "{tmp}/project"], "README.md is no index of results"),
        (["index", "{tmp}/empty", "--front-page", "quick"], "has no metrics.json of such a run"),
        (["run", "{tmp}/mine.yml", "--dry", "--force"], "knows no --only and no --force"),
        (["run", "{tmp}/mine.yml", "-p", "seeds", "0"], "mine.yml with -p seeds: parameter"),
        (["run", "{tmp}/mine.yml", "-p", "studies", "[07_report]"], "'07_report' is no study"),
        (["run", "{tmp}/mine.yml", "-p", "studies", "[08_estimators]"], "set `compare`"),
        (["needs", "{tmp}/mine.yml", "--from", "{tmp}/mine.yml"], "no results of a run"),
        (["needs", "{tmp}/mine.yml", "--from", ""], "no results of a run"),
    ],
)
def test_commands_tell_mistakes_in_one_line(tmp_path, capsys, arguments, message):
    (tmp_path / "mine.yml").write_text("name: mine\n")
    (tmp_path / "twice.yml").write_text("seed: 1\nseed: 2\n")
    for folder in ("project", "empty"):
        (tmp_path / folder).mkdir()
    (tmp_path / "project" / "README.md").write_text("# A project of its own\n")
    before = sorted(tmp_path.iterdir())
    assert main([argument.replace("{tmp}", str(tmp_path)) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1
    assert len(error) < LONGEST + 20 and sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "project" / "README.md").read_text() == "# A project of its own\n"


@pytest.mark.parametrize(
    "option",
    [
        ["needs", "x.yml", "--reply-tokens", "nan"],
        ["needs", "x.yml", "--reply-tokens", "-1"],
        ["needs", "x.yml", "--tokens-per-second", "0"],
        ["needs", "x.yml", "--q-tokens-per-second", "inf"],
        ["bench", "search", "--repeats", "0"],
        ["bench", "search", "--repeats", "many"],
    ],
)
def test_numbers_of_options_are_finite_and_positive(capsys, option):
    with pytest.raises(SystemExit) as caught:
        main(option)
    assert caught.value.code == 2
    assert f"error: argument {option[2]}: " in capsys.readouterr().err


def test_variables_of_launchers_that_are_no_numbers_are_told(monkeypatch):
    for size in ("", "1"):
        monkeypatch.setenv("WORLD_SIZE", size)
        assert rank() == (0, 1)
    monkeypatch.setenv("WORLD_SIZE", "many")
    assert "RANK and WORLD_SIZE say '0' and 'many', which are no numbers" in refused(rank)


def test_who_reads_no_more_and_who_knows_few_letters_gets_no_traceback():
    command = [sys.executable, "-m", "qvlib.cli", "params"]
    piped = subprocess.run(
        ["bash", "-c", '"$@" | head -n 1', "-", *command], capture_output=True, text=True, cwd=ROOT
    )
    assert piped.stdout.startswith("parameter ") and piped.stderr == ""
    code = "import sys; from qvlib.cli import main; sys.exit(main(['run', 'π\u2192.yml']))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert done.stderr.startswith("error: \\u03c0\\u2192.yml: no such parameter file")


def test_overrides_of_a_world_of_ones_own_may_be_any_text():
    assert parse_value("roads_of_mine", "[a") == "[a"
    assert parse_value("roads_of_mine", "3") == 3


def test_an_error_is_one_short_line_that_steers_no_terminal():
    error = QvlibError("first\nsecond \x1b[2J\x9b \u202e " + "x" * 9000 + " the remedy")
    assert str(error).startswith("first second \\x1b[2J\\x9b \\u202e xxx")
    assert str(error).endswith("x the remedy") and len(str(error)) == LONGEST
    assert str(QvlibError(error)) == str(error)
    words = "what was read from it cannot be " * 9
    told = str(QvlibError(f"{words}/a{'b' * 200}c/{'d' * 200}: restore it"))
    assert told.startswith("what was read") and told.endswith("d: restore it")
    assert len(told) <= LONGEST and str(QvlibError(words[:280])) == words[:280].strip()
    path = "/very" * 30 + "/manifest.json"
    told = str(
        QvlibError(f"{path} holds what nobody wrote; restore it, or delete {path} and go on")
    )
    assert (
        told.count("...") == 1 and " holds what nobody wrote; restore it, or delete /very" in told
    )


def test_as_many_workers_as_processes_whatever_the_number_of_chains(tmp_path, monkeypatch):
    """Six agents of three chains are parts of one stream of two workers."""
    from qvlib.base import executors
    from qvlib.pipeline import agents

    asked, streamed = [], []

    class Recorder:
        workers = 2

        def place(self, folders):
            pass

        def stream(self, work, parts, key=None):
            streamed.append(len(parts))
            return iter(())

    @contextlib.contextmanager
    def recorded(name, *, workers, device, imports):
        asked.append(workers)
        yield Recorder()

    params = make({"processes": 2, "seeds": 3, "runs_dir": str(tmp_path)})
    monkeypatch.setattr(executors, "make", recorded)
    monkeypatch.setattr(agents, "data_folders", lambda params: [])
    chains = [pipeline.Context(chain, object()) for chain in params.each_seed()]
    agents.make_agents([(chain, which) for chain in chains for which in ("agent", "other_agent")])
    assert asked == [2] and streamed == [6]
    with workers(params) as executor:
        assert executor.workers == 2


def test_the_clock_set_back_costs_no_stage_its_seconds(tmp_path, monkeypatch):
    from qvlib.runs import stage as stages
    from qvlib.runs.stage import open_stage, read_stage, seconds_spent

    params = make({"runs_dir": str(tmp_path)})
    now = time.time()
    with open_stage(params, "trees") as stage:
        monkeypatch.setattr(stages.time, "time", lambda: now - 86400)
        stage.finish()
    assert 0 <= read_stage(params, "trees").manifest["seconds"] < 60
    assert 0 <= seconds_spent(params, "02_collect") < 60


def test_the_numbers_of_the_files_are_as_they_were():
    """Every file of the project is still taken."""
    for path in sorted(ROOT.glob("params/**/*.yml")):
        if path.parent.name != "grids":
            load(path)


@pytest.mark.parametrize(
    ("output", "status", "says"),
    [
        (">&-", 0, ""),
        ("2>&-", 0, ""),
        (">/dev/full", 2, "error: the disk is full; make room there"),
    ],
)
def test_an_output_that_is_closed_or_full_is_no_traceback(output, status, says):
    if "full" in output and not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    command = f'"{sys.executable}" -m qvlib.cli params {output}'
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr.count("\n")) == (status, bool(says))
    assert done.stderr.startswith(says)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16-le", "utf-32"])
def test_a_file_in_another_encoding_is_told_which_to_use(tmp_path, encoding):
    path = tmp_path / "mine.yml"
    path.write_bytes("name: mine\nwandb_project: café\n".encode(encoding))
    told = refused(lambda: load(path))
    assert "not YAML: at character " in told and told.endswith("; save it as text in UTF-8")


def test_a_file_with_a_mark_of_its_encoding_is_read(tmp_path):
    path = tmp_path / "mine.yml"
    for encoding in ("utf-8-sig", "utf-16"):
        path.write_bytes("wandb_project: café\n".encode(encoding))
        assert load(path).run.wandb_project == "café"
