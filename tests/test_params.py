"""Parameters: the files in params/, what is refused, what names a stage's folder."""

import re
from pathlib import Path

import pytest
import yaml

from qvlib.base.errors import QvlibError
from qvlib.cli import main, params_table, parse_value
from qvlib.pipeline.params import STAGES, Params, from_notebook, load, make

FOLDER = Path(__file__).parents[1] / "params"
PAPER = sorted((FOLDER / "paper").glob("*.yml"))
FILES = [*sorted(FOLDER.glob("*.yml")), *PAPER]


def test_quick_is_the_defaults_and_complete():
    path = next(p for p in FILES if p.name == "quick.yml")
    assert load(path) == Params()
    assert set(yaml.safe_load(path.read_text())) == set(Params.model_fields)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_files_are_valid_commented_and_named_as_their_results(path):
    assert load(path).name == path.stem
    for line in path.read_text().splitlines():
        assert not line or "# " in line, f"{path.name}: no comment: {line}"


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
        assert len(files) == agents and {params.environment for params in files.values()} == {world}
        assert {params.q_base for params in files.values()} == {"microsoft/phi-1_5"}
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
        ("agent_heads: 3", "'agent_width': 128 is no multiple of twice agent_heads = 3"),
        ("other_width: 100\nother_demonstrations: 9", "'other_width'"),
        ("q_base: small", "'q_base': small cannot be tuned"),
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
    assert make({"exploration": 2}).exploration == 2.0


def test_notebook_names_that_are_no_parameters_are_refused():
    assert from_notebook({"iterations": 7, "_private": 1, "In": [], "load": load}).iterations == 7
    with pytest.raises(QvlibError, match="iteratoins"):
        from_notebook({"iteratoins": 7})


def test_a_digest_changes_with_the_stage_and_all_after_it_only():
    base, other = Params(), Params(iterations=7)
    changed = {s for s in STAGES if base.digest(s) != other.digest(s)}
    assert changed == {"trees", "pairs", "q_model", "control", "rft", "episodes", "rules", "trial"}
    assert Params(batch_size=3, runs_dir="x", device="cuda").digest("episodes") == base.digest(
        "episodes"
    )
    assert Params(agent_width=64).digest("other_agent") != base.digest("other_agent")


def test_a_parameter_that_came_later_keeps_the_digest_of_what_was_made_before_it():
    assert "instructions" not in Params().stage_fields("agent") and "instructions" in Params(
        instructions=False
    ).stage_fields("agent")
    assert Params(instructions=False).digest("agent") != Params().digest("agent")


def test_the_baseline_rft_decides_nothing_where_it_is_not_played():
    base, played = Params(), Params(rft=True)
    assert {s for s in STAGES if base.digest(s) != played.digest(s)} == {"rft", "episodes"}
    assert Params(rft_lr=1e-3, rft_epochs=7).digest("episodes") == base.digest("episodes")
    assert Params(rft=True, rft_lr=1e-3).digest("episodes") != played.digest("episodes")
    assert (
        played.has("rft")
        and not base.has("rft")
        and base.has("other_agent")
        and not Params(other_demonstrations=0).has("other_agent")
    )
    assert (
        not base.has("rules")
        and not base.has("trial")
        and Params(rule_tasks=1).has("rules")
        and Params(grid="some.yml").has("trial")
    )


def test_overrides_take_the_type_of_their_parameter():
    assert parse_value("dpo_lr", "1e-5") == 1e-5  # YAML alone would read text
    assert parse_value("iterations", "7") == 7
    assert parse_value("name", "2024") == "2024"
    assert parse_value("filter_actions", "false") is False
    with pytest.raises(QvlibError, match="'iterations'"):
        make({"iterations": parse_value("iterations", "many")})


def test_the_table_shows_every_parameter_within_120_columns(capsys):
    table = params_table(Params(iterations=7, data_dir="a/" * 60))
    assert max(map(len, table.splitlines())) <= 120
    shown = {line.split()[0] for line in table.splitlines() if line.strip()}
    assert set(Params.model_fields) <= shown
    row = next(line.split() for line in table.splitlines() if line.startswith("iterations "))
    assert row[1:3] == ["7", "30"]
    assert main(["params"]) == 0 and "catalogue_products" in capsys.readouterr().out


def test_the_command_line_reports_an_error_in_one_line(capsys):
    assert main(["params", "no/such.yml"]) == 2
    assert capsys.readouterr().err == "error: no/such.yml: no such parameter file; see params/\n"
