"""A small share of the campaign: its checks see what is wrong, and bad inputs are told clearly."""

import json

import pytest

from tests import campaign
from tests.bad_inputs import CASES, KEY, Bad

SHARE = (
    "parameters: key mistyped",
    "parameters: temperature is no number",
    "parameters: float for integer",
    "parameters: list for text",
    "parameters: estimator mistyped",
    "parameters: password in the address",
    "parameters: heads do not divide",
    "parameters: setting of another world",
    "parameters: not YAML",
    "parameters: binary",
    "parameters: Python object",
    "grid: unknown parameter",
    "grid: not there",
    "node: parent unknown",
    "tree: no value",
)
CASE = Bad("a", lambda made, here: 0, ("seed", "7"))
TAKEN = Bad("b", lambda made, here: 0, ("read",), taken=True)
LINE = "error: p.yml: parameter 'seed': 7 is too much; lower it\n"


@pytest.mark.parametrize("name", SHARE)
def test_a_bad_input_is_told_in_one_line(name, tmp_path, capfd):
    case = CASES[name]
    code = case.run(tmp_path, tmp_path)
    assert campaign.classify(case, code, *capfd.readouterr()) == campaign.CLEAR


@pytest.mark.parametrize(
    "case, code, out, err, outcome",
    [
        (CASE, 2, "", LINE, "clear"),
        (CASE, 2, "", "warning: x was made by other code\n" + LINE, "clear"),
        (CASE, 2, "", LINE.replace("seed", "side"), "unclear"),
        (CASE, 2, "", LINE + "more\n", "unclear"),
        (CASE, 2, "", LINE.strip() + "x" * 300, "unclear"),
        (CASE, 2, "", LINE.strip() + "\x1b[2J", "unclear"),
        (CASE, 2, KEY, LINE, "unclear"),
        (CASE, 1, "", LINE, "unclear"),
        (CASE, 2, "", "", "unclear"),
        (CASE, 0, "seed 7", "", "silently wrong"),
        (CASE, 1, "", "Traceback (most recent call last):\nseed 7\n", "traceback"),
        (CASE, -9, "", LINE, "traceback"),
        (CASE, None, "", LINE, "hangs"),
        (TAKEN, 0, "read", "", "clear"),
        (TAKEN, 0, "", "", "silently wrong"),
        (TAKEN, 2, "read", LINE, "unclear"),
    ],
)
def test_each_outcome_is_seen(case, code, out, err, outcome):
    assert campaign.classify(case, code, out, err) == outcome


def test_there_are_many_and_each_has_a_name_of_its_own():
    assert len(CASES) >= 120 and all(case.names or case.taken for case in CASES.values())


def test_counts_are_kept_and_the_same_command_goes_on(tmp_path, capsys, monkeypatch):
    tried = []

    def wrong_once(case, made):
        tried.append(case.name)
        outcome = campaign.UNCLEAR if case.name == "grid: empty" else campaign.CLEAR
        return {"name": case.name, "outcome": outcome, "said": "error: no\n"}

    monkeypatch.setattr(campaign, "try_input", wrong_once)
    monkeypatch.setattr(campaign.bad_inputs, "prepare", lambda made: None)
    command = ["--kills", "0", "--inputs", "grid", "--folder", str(tmp_path), "--jobs", "2"]
    for _ in range(2):
        assert campaign.main(command) == 1
        told = capsys.readouterr().out
        assert "unclear: grid: empty\n    error: no" in told
    assert sorted(tried) == sorted(name for name in CASES if "grid" in name)
    counts = [line for line in told.splitlines() if line.startswith("|")]
    row = [cell.strip() for cell in counts[2].strip("|").split("|")]
    assert row == [str(len(tried)), str(len(tried) - 1), "1", "0", "0", "0"]
    kept = [json.loads(line) for line in (tmp_path / "inputs.jsonl").read_text().splitlines()]
    assert len(kept) == len(tried)


def test_a_real_one_in_a_process_of_its_own(tmp_path):
    found = campaign.try_input(CASES["parameters: key mistyped"], tmp_path)
    assert found["outcome"] == campaign.CLEAR and "did you mean 'seed'" in found["said"]


def test_the_table_of_kills():
    kill = {"aimed": "trees", "struck": "trees", "victim": "worker", "finished": 3}
    right = {"round": 0, "kills": [kill, kill], "lost": 0, "repeated": 0, "different": {}}
    wrong = {**right, "lost": 1, "repeated": 2, "different": {"arms": "reward: 0 and 1"}}
    assert campaign.is_right([right], []) and not campaign.is_right([right, wrong], [])
    told = campaign.tables([right, wrong], [])
    cells = [cell.strip() for cell in told.splitlines()[2].strip("|").split("|")]
    assert cells == ["4", "1", "2", "1"] and "arms: reward: 0 and 1" in told
