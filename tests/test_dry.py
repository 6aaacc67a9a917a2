"""Parameter files taken through all stages with small random models of the architectures they name."""

from __future__ import annotations

import pytest
import transformers

from qvlib import dry
from qvlib.cli import main
from qvlib.errors import QvlibError
from qvlib.params import make
from qvlib.pipeline.models import load


@pytest.mark.slow
def test_every_stage_runs(tmp_path, capsys):
    """Phi-3 with thoughts and an example, a Phi-1.5 Q model as an adapter."""
    file = tmp_path / "phi3.yml"
    file.write_text("name: phi3\nagent: microsoft/Phi-3-mini-4k-instruct\nq_base: microsoft/phi-1_5\ndevice: cuda\ndtype: bfloat16\n"
                    "other_demonstrations: 0\ntrainer: trl\nlora_rank: 4\nexamples: 1\ndata_dir: data/webshop\n")
    assert main(["run", str(file), "--dry", "-p", "test_tasks", "500"]) == 0
    printed = capsys.readouterr().out
    assert "| q_n10" in printed and "| mcts" in printed and "all stages done" in printed


@pytest.mark.parametrize(("name", "architecture"), [
    ("microsoft/Phi-3-mini-4k-instruct", transformers.Phi3ForCausalLM), ("microsoft/phi-1_5", transformers.PhiForCausalLM),
    ("meta-llama/Llama-3.1-8B-Instruct", transformers.LlamaForCausalLM), ("api:gpt-4o-mini", transformers.LlamaForCausalLM)])
@pytest.mark.parametrize("environment", ["webshop", "hotpotqa"])
def test_models_are_of_the_architecture_they_stand_for(tmp_path_factory, name, architecture, environment):
    folder = tmp_path_factory.getbasetemp() / f"dry-{environment}"
    params = dry.dry(make({"agent": name, "other_demonstrations": 0, "environment": environment}), folder)
    assert params.device == "cpu" and params.data_dir == "" and params.warm_start and params.name == "quick-dry"
    lm = load(params, params.agent)
    assert type(lm.model) is architecture and lm.model.num_parameters() < 10**6
    assert dry.dry(make({"agent": name, "other_demonstrations": 0, "environment": environment}), folder).agent == params.agent


def test_a_family_that_is_not_known_is_told(tmp_path):
    with pytest.raises(QvlibError, match="acme/Rocket-1: no dry run for its family; known are gpt2, llama"):
        dry.dry(make({"agent": "acme/Rocket-1"}), tmp_path)
