"""Parameter files taken through all stages with small random models of their architectures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import transformers

from qvlib.base.errors import QvlibError
from qvlib.base.seeding import generator
from qvlib.cli import main
from qvlib.models.api_client import ApiClient
from qvlib.pipeline import baselines, comparison, context_of, tuning
from qvlib.pipeline.models import load
from qvlib.pipeline.params import load as load_params
from qvlib.pipeline.params import make
from qvlib.tools import dry, dry_server
from qvlib.tools.dry_server import completion, serving

pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")
ROOT = Path(__file__).parents[1]
PAPER = sorted((ROOT / "params" / "paper").glob("*.yml"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Files of one world share its data and its random models."""
    return tmp_path_factory.mktemp("dry")


@pytest.mark.slow
def test_every_stage_runs(tmp_path, capsys):
    """Phi-3 with thoughts and an example, warm-started, a Phi-1.5 Q model as an adapter."""
    file = tmp_path / "phi3.yml"
    file.write_text(
        "name: phi3\nagent: microsoft/Phi-3-mini-4k-instruct\nq_base: microsoft/phi-1_5\n"
        "device: cuda\ndtype: bfloat16\nother_demonstrations: 0\ntrainer: trl\nlora_rank: 4\n"
        "examples: 1\ndata_dir: data/webshop\nwarm_start: true\n"
    )
    assert main(["run", str(file), "--dry", "-p", "test_tasks", "500"]) == 0
    printed = capsys.readouterr().out
    assert "| q_n10" in printed and "| search" in printed and "all stages done" in printed


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--only", "05"], "it knows no --only and no --force; leave them out"),
        (["--only", ""], "leave them out"),
        (["--force"], "leave them out"),
        (["-p", "grid", "none.yml"], "none.yml: no such grid"),
        (["-p", "compare", "none.yml"], "none.yml: no such comparison"),
        (["-p", "studies", "[99_none]"], "no notebook '99_none'"),
    ],
)
def test_what_a_run_refuses_at_once_is_refused_dry(monkeypatch, capsys, arguments, message):
    monkeypatch.setattr(dry, "run", lambda *_: pytest.fail("it began"))
    assert main(["run", str(ROOT / "params" / "quick.yml"), "--dry", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("path", PAPER, ids=lambda path: path.stem)
def test_the_papers_files_run(folder, path, monkeypatch):
    """All arms are played, and an agent behind a server is asked over HTTP."""
    asked = []
    monkeypatch.setattr(
        dry_server,
        "completion",
        lambda lm, body: (asked.append(body["model"]), completion(lm, body))[1],
    )
    params = load_params(path)
    arms = dry.run(params, folder).set_index("arm")
    assert set(arms.index) == {arm.name for arm in params.arms()}
    asked_for = arms.drop(index=["demonstrator", "script"], errors="ignore")  # scripts read none
    assert (asked_for["prompt_tokens"] > 100).all() and (asked_for["tokens"] > 0).all()
    second = params.other_agent.other_demonstrations > 0
    agents = (params.agent.agent, *[params.other_agent.other_agent] * second)
    assert {f"api:{model}" for model in asked} == {
        name for name in agents if name.startswith("api:")
    }


@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        ("microsoft/Phi-3-mini-4k-instruct", transformers.Phi3ForCausalLM),
        ("microsoft/phi-1_5", transformers.PhiForCausalLM),
        ("meta-llama/Llama-3.1-8B-Instruct", transformers.LlamaForCausalLM),
    ],
)
@pytest.mark.parametrize("environment", ["webshop", "hotpotqa"])
def test_models_are_of_the_architecture_they_stand_for(folder, name, architecture, environment):
    given = make({"agent": name, "other_demonstrations": 0, "environment": environment})
    params = dry.dry(given, folder)
    assert (
        params.run.device == "cpu"
        and params.world.data_dir == ""
        and params.run.name == "quick-dry"
    )
    lm = load(context_of(params), params.agent.agent)
    assert type(lm.model) is architecture and lm.model.num_parameters() < 10**6
    assert dry.dry(given, folder).agent.agent == params.agent.agent


def test_a_served_model_keeps_its_name_and_is_sent_no_key(folder):
    params = dry.dry(
        make(
            {"agent": "api:gpt-4o-mini", "q_base": "microsoft/phi-1_5", "other_demonstrations": 0}
        ),
        folder,
    )
    assert params.agent.agent == "api:gpt-4o-mini" and params.server.api_key_variable == ""


def test_arms_that_try_in_the_environment_try_less_where_they_are_played(folder):
    tried = {"lats_iterations": 30, "reflexion_trials": 10}
    params = dry.dry(make({**tried, "other_demonstrations": 0}), folder).flat()
    assert (params["lats_iterations"], params["reflexion_trials"]) == (1, 2)
    assert params["best_first_steps"] == 0  # no such arm


def test_of_a_comparison_one_try_of_each_estimator_is_taken(folder):
    """Random models earn nothing: what counts as success, or as right, is set below that."""
    given = load_params(ROOT / "params" / "estimators-smollm2.yml")
    small = dry.dry(given, folder)
    tries = {one.name: one.params.flat() for one in tuning.read(small)}
    compared = {one.name for one in tuning.read(given)}
    assert set(tries) == compared - {"published"} and len(tuning.read(small)) == len(tries) == 16
    assert small.ablations.trial_tasks == 2
    assert tries["tvm"]["success_reward"] == 0.0 and tries["pqm"]["right_above"] == -1.0
    assert tries["llm_value"]["q_base"] == "" and tries["agentrm"]["fit_lr"] == 2.0e-5


@pytest.mark.slow
def test_a_comparison_is_made_and_what_cannot_be_compared_is_told(tmp_path, monkeypatch):
    """A value head, a probability of success and a model that is asked, each with its control."""
    (tmp_path / "compared.yml").write_text("agentrm: [{}]\ntvm: [{}]\nllm_value: [{}]\n")
    params = make(
        {
            "agent": "meta-llama/Llama-3.1-8B-Instruct",
            "other_demonstrations": 0,
            "compare": str(tmp_path / "compared.yml"),
        }
    )
    found = []
    run = comparison.run
    monkeypatch.setattr(comparison, "run", lambda params: found.append(run(params)) or found[-1])
    (tmp_path / "dry").mkdir()
    assert {"q_n5", "control_q_n5"} <= set(dry.run(params, tmp_path / "dry")["arm"])
    assert set(found[0].chosen) == {"agentrm", "tvm", "llm_value"} and not found[0].failed
    failing = replace(found[0], failed={"tvm": "no luck"})
    monkeypatch.setattr(comparison, "run", lambda params: failing)
    with pytest.raises(QvlibError, match=r"compared\.yml, tvm: no luck"):
        dry.run(params, tmp_path / "dry")


@pytest.mark.slow
def test_of_arms_at_one_budget_one_try_of_each_is_made(tmp_path, monkeypatch, capsys):
    file = "sample: [{}]\nq_n5: [{}, {dpo_lr: 1.0e-2}]\n"
    file += "rft: [{rft: true, rft_lr: 1.0e-5}, {rft: true, rft_lr: 1.0e-3}]\n"
    file += "eto: [{eto: true}]\nreflexion: [{reflexion_trials: 10}]\n"
    (tmp_path / "arms.yml").write_text(file)
    params = make(
        {
            "agent": "meta-llama/Llama-3.1-8B-Instruct",
            "other_demonstrations": 0,
            "baselines": str(tmp_path / "arms.yml"),
        }
    )
    found = []
    run = baselines.run
    monkeypatch.setattr(baselines, "run", lambda params: found.append(run(params)) or found[-1])
    (tmp_path / "dry").mkdir()
    dry.run(params, tmp_path / "dry")
    assert {"sample", "q_n5", "reflexion"} <= {*found[0].chosen}
    # Random models may earn nothing that an agent could be tuned on: that is told, and no error.
    assert {*found[0].failed} <= {"rft", "eto"}
    said = capsys.readouterr().out
    assert all(f"{name} was not tuned" in said for name in found[0].failed)
    assert found[0].chosen["reflexion"].params.reflexion.reflexion_trials == 2
    failing = replace(found[0], failed={"rft": "nothing earned", "q_n5": "no luck"})
    monkeypatch.setattr(baselines, "run", lambda params: failing)
    with pytest.raises(QvlibError, match=r"arms\.yml, q_n5: no luck"):
        dry.run(params, tmp_path / "dry")


def test_the_server_answers_as_its_model_samples(folder):
    params = dry.dry(
        make({"agent": "meta-llama/Llama-3.1-8B-Instruct", "other_demonstrations": 0}), folder
    )
    lm = load(context_of(params), params.agent.agent)
    messages = [
        {"role": "system", "content": "Buy a lamp."},
        {"role": "user", "content": "Observation: Search"},
    ]
    text = "<|system|>\nBuy a lamp.<|end|>\n<|user|>\nObservation: Search<|end|>\n<|assistant|>\n"
    prompt = tuple(lm.tokenizer(text)["input_ids"])
    body = {
        "model": "gpt",
        "messages": messages,
        "temperature": 1.0,
        "top_p": 0.9,
        "max_tokens": 24,
    }
    with serving(lm) as url:
        client = ApiClient("gpt", url, key_variable="")
        replies = client.complete(body, 3, lambda redraw: 7)
        assert client.complete(body, 3, lambda redraw: 7) == replies
        assert client.complete(body, 1, lambda redraw: 8) != replies[:1]
        (greedy,) = client.complete(
            {**body, "temperature": 0.0, "stop": [" "]}, 1, lambda redraw: 7
        )
        # `api_extra` may leave these out.
        left_out = {**body, "temperature": None, "top_p": None, "seed": None}
        assert client.complete(left_out, 2, lambda redraw: 7)[1] is not None
    (drawn,) = lm.sample([prompt], [[generator(7, "served", i).random for i in range(3)]], 1.0, 0.9)
    assert [reply.text for reply in replies] == [
        lm.tokenizer.decode(ids, skip_special_tokens=True) for ids, _ in drawn
    ]
    assert sum(reply.completion_tokens for reply in replies) == sum(len(ids) for ids, _ in drawn)
    assert sum(reply.prompt_tokens for reply in replies) == len(prompt)
    ((ids, _),) = lm.sample([prompt], [[None]], 1.0, 0.9)[0]
    assert (
        greedy.text == lm.tokenizer.decode(ids, skip_special_tokens=True).split(" ")[0]
        and " " not in greedy.text
    )


def test_a_family_that_is_not_known_is_told(tmp_path):
    with pytest.raises(
        QvlibError, match="acme/Rocket-1: no dry run for its family; known are gpt2, llama"
    ):
        dry.dry(make({"agent": "acme/Rocket-1"}), tmp_path)
