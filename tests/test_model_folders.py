"""Folders of models that are not what they say: each is refused in one line that names it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from chat_templates import CHANNELS, CHATML, LLAMA_3, QWEN_3
from safetensors.torch import load_file, save_file
from test_chat import OPENED, RULES, told
from toy import small_lm
from transformers import AutoModelForCausalLM, MambaConfig

from qvlib.base.errors import QvlibError
from qvlib.core.types import Request
from qvlib.models import templates
from qvlib.models.chat import Chat, ChatPrompt
from qvlib.models.fingerprint import _hash, fingerprint
from qvlib.models.loading import load_folder, load_model
from qvlib.models.local import LocalModel
from qvlib.pipeline import models
from qvlib.pipeline.agents import size_of
from qvlib.pipeline.params import make


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A model as it should be."""
    lm, folder = small_lm("float32"), tmp_path_factory.mktemp("whole")
    lm.save(folder)
    return folder


@pytest.fixture
def folder(whole, tmp_path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(whole, tmp_path / "model"))


def change(file: Path, **values) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def weights(folder: Path, edit) -> None:
    """Edit the tensors of a folder in place."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    edit(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def refusal(folder: Path, **options) -> str:
    with pytest.raises(QvlibError) as error:
        load_folder(folder, **options)
    words = str(error.value)
    assert "\n" not in words and len(words) <= 300 and str(folder) in words
    return words.removeprefix(str(folder))


def test_more_layers_than_weights(folder, caplog):
    change(folder / "config.json", num_hidden_layers=3)
    words = refusal(folder)
    assert not caplog.records  # no report beside the line
    assert "9 of its weights are missing, such as model.layers.2." in words


def test_more_weights_than_layers(folder):
    change(folder / "config.json", num_hidden_layers=1)
    assert "9 weights of layers that its config.json does not have" in refusal(folder)


def test_another_architecture(folder):
    change(folder / "config.json", model_type="gpt2", architectures=["GPT2LMHeadModel"])
    words = refusal(folder)
    assert "weights are missing, such as" in words or "could be read" in words


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("tokenizer.json", "{}"),
        ("tokenizer.json", "[]"),
        ("tokenizer.json", '{"version": "1.0", '),
        ("tokenizer_config.json", "[]"),
        ("tokenizer_config.json", '{"tokenizer_class": 7}'),
        ("config.json", "[]"),
        ("config.json", {"num_attention_heads": 0}),
        ("config.json", {"num_attention_heads": None}),
        ("config.json", {"num_hidden_layers": -1}),
        ("config.json", {"hidden_act": "none such"}),
    ],
)
def test_files_that_are_not_what_they_say(folder, file, content):
    if isinstance(content, dict):
        change(folder / file, **content)
    else:
        (folder / file).write_text(content)
    refusal(folder)


def test_an_adapter_in_the_place_of_a_model(folder):
    (folder / "config.json").unlink()
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    told = json.dumps({"peft_type": "LORA", "base_model_name_or_path": "someone/llama"}, indent=1)
    (folder / "adapter_config.json").write_text(told)
    assert "holds an adapter of someone/llama, no model; merge it" in refusal(folder)
    for file in folder.glob("tokenizer*"):
        file.unlink()
    assert "holds an adapter of someone/llama, no model; merge it" in refusal(folder)


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json"])
def test_a_pointer_in_the_place_of_a_file(folder, file):
    (folder / file).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n")
    assert f"{file} is a pointer of Git LFS, not the file; fetch it by `git lfs" in refusal(folder)


def test_an_index_of_one_tensor(folder):
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    norm = {name: tensors.pop(name) for name in ["model.norm.weight"]}
    shards = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    for file, part in zip(shards, (norm, tensors), strict=True):
        save_file(part, folder / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {"model.norm.weight": shards[0]}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "20 of its weights are missing, such as lm_head.weight" in refusal(folder)


def test_a_tensor_left_out(folder):
    weights(folder, lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))
    assert "1 of its weights are missing, such as model.layers.1.mlp.up_proj.weight" in (
        refusal(folder)
    )


def test_a_tensor_of_another_shape(folder):
    def cut(tensors):
        tensors["model.norm.weight"] = tensors["model.norm.weight"][:5].clone()

    weights(folder, cut)
    assert "no causal language model could be read" in refusal(folder)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(folder, number):
    def spoil(tensors):
        tensors["model.layers.0.mlp.up_proj.weight"][3, 4] = number

    weights(folder, spoil)
    assert ": model.layers.0.mlp.up_proj.weight holds numbers that are not finite" in (
        refusal(folder)
    )


def test_pickled_weights_are_read_where_that_is_asked_for(folder):
    tensors = load_file(folder / "model.safetensors")
    torch.save(tensors, folder / "pytorch_model.bin")
    assert load_folder(folder)  # the safetensors are there
    (folder / "model.safetensors").unlink()
    words = refusal(folder)
    assert "pickles (pytorch_model.bin)" in words and "pickled_weights: true" in words
    lm = load_folder(folder, pickled_weights=True)
    name = "model.norm.weight"
    assert torch.equal(lm.model.state_dict()[name], tensors[name])


CODE = """
from pathlib import Path
from types import SimpleNamespace
from transformers import LlamaConfig, LlamaForCausalLM
Path(__file__).with_name("ran").touch()
Path({marker!r}).touch()
class OwnConfig(LlamaConfig):
    model_type = "own"
class Own(LlamaForCausalLM):
    config_class = OwnConfig
"""


def test_code_that_a_model_brings_is_run_where_that_is_asked_for(folder, tmp_path, monkeypatch):
    marker = tmp_path / "ran"
    (folder / "own.py").write_text(CODE.format(marker=str(marker)))
    auto_map = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.Own"}
    change(folder / "config.json", model_type="own", auto_map=auto_map, architectures=["Own"])
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("the terminal was asked"))
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    words = refusal(folder)
    assert "code of its own (auto_map)" in words and "trust_remote_code: true" in words
    assert not marker.exists()
    assert load_folder(folder, trust_remote_code=True).model.config.model_type == "own"
    assert marker.exists()


def test_code_beside_a_known_architecture_is_not_run(folder, monkeypatch):
    change(folder / "config.json", auto_map={"AutoModelForCausalLM": "own.Own"})
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("the terminal was asked"))
    assert type(load_folder(folder).model).__name__ == "LlamaForCausalLM"


def test_more_tokens_than_embeddings(folder):
    lm = small_lm("float32")
    lm.tokenizer.add_tokens(["<|beyond|>"])
    lm.tokenizer.save_pretrained(folder)
    words = refusal(folder)
    assert "'<|beyond|>' the id 4" in words and "embeddings" in words


def test_a_model_that_cannot_go_on_from_kept_keys(folder):
    """A recurrent state is no keys and values: it can neither be padded nor cut."""
    vocabulary = len(small_lm("float32").tokenizer)
    config = MambaConfig(vocab_size=vocabulary, hidden_size=16, num_hidden_layers=1, state_size=4)
    for name in ("model.safetensors", "config.json"):
        (folder / name).unlink()
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    words = refusal(folder)
    assert "a model of type mamba" in words and "use another architecture" in words


class Configured:
    """As much of a model as the hub's commit is read from."""

    def __init__(self, commit):
        self.model = SimpleNamespace(config=SimpleNamespace(_commit_hash=commit))


def test_a_model_that_changed_on_the_hub_is_told(tmp_path, monkeypatch):
    stage = SimpleNamespace(path=tmp_path, facts={"model": "some/model", "commit": "a" * 40})
    monkeypatch.setattr(models, "read_stage", lambda *_: stage)
    context = SimpleNamespace(params=None)
    for commit in ("a" * 40, "b" * 40, None):
        monkeypatch.setattr(models, "load", lambda *_, commit=commit: Configured(commit))
        if commit == "a" * 40:
            assert models.commit_of(models.load_of_stage(context)) == commit
            continue
        with pytest.raises(QvlibError, match=r"changed on the hub.*commit aaaaaaaa, now") as error:
            models.load_of_stage(context)
        assert len(str(error.value)) < 300 + len(str(tmp_path)) and "\n" not in str(error.value)
    stage.facts.pop("commit")
    assert models.load_of_stage(context)


# -- templates ----------------------------------------------------------------------------------


def chatting(folder: Path, template, thoughts: bool = False) -> LocalModel:
    """The model of a folder with another template."""
    tokenizer = small_lm("float32").tokenizer
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)

    def style(tokenizer):
        return Chat(tokenizer, RULES, lambda task: "Shop", thoughts=thoughts)

    return load_model(folder, chat=style)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ({"rag": CHATML, "tool_use": CHATML}, "rag, tool_use none is named default"),
        ("{{ persona.name }}" + CHATML, "its chat template fails ('persona' is undefined)"),
        ("{% for m in messages %}{{ m }", "its chat template fails"),
        ("{% for m in messages %}{{ m['content'] + none }}{% endfor %}", "template fails"),
        ("{{ 1 // (messages | length - messages | length) }}", "template fails"),
        ("{{ range(10 ** 6) | length }}" + CHATML, "template fails (Range too big."),
        ("{{ messages[0]['content'] }}", "leaves out turns of a conversation"),
        ({"default": CHATML, "rag": "{{ x.y }}"}, None),
        (CHATML.replace("%}<|im", "%}{{ m['content'] + 1 if m['role'] == 'system' }}<|im"), None),
    ],
)
def test_a_template_that_cannot_be_followed(folder, template, words):
    if words is None:
        assert chatting(folder, template).prompt(OPENED)[0].text.endswith("Action:")
        return
    with pytest.raises(QvlibError) as error:
        chatting(folder, template)
    assert words in str(error.value) and str(error.value).startswith(str(folder))
    assert "\n" not in str(error.value) and len(str(error.value)) <= 300


def test_the_turns_of_a_model_without_a_template_stand_on_lines_of_their_own():
    text = told("plain").style(OPENED).text
    lines = [line for line in text.splitlines() if line.startswith(("System", "User", "Assistant"))]
    assert [line.partition(":")[0] for line in lines] == [
        "System",
        *["User", "Assistant"] * 3,
    ]
    assert "<end>\nUser: Observation: " in text and text.endswith("\nAssistant: Action:")


OPEN = QWEN_3.replace("<think>\\n\\n</think>\\n\\n", "<think>\\n").replace(
    "<think>\n\n</think>\n\n", "<think>\n"
)


def test_an_action_is_asked_for_after_the_thought_or_not_at_all(folder):
    """Where no thoughts are asked for a thought is closed; with them the reply closes it."""
    assert (
        chatting(folder, QWEN_3)
        .prompt(OPENED)[0]
        .text.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\nAction:")
    )
    with pytest.raises(QvlibError, match=r"a thought before each reply; set thoughts: true"):
        chatting(folder, OPEN)
    prompt = chatting(folder, OPEN, thoughts=True).prompt(OPENED)[0]
    assert prompt.text.endswith("<|im_start|>assistant\n<think>\n")
    assert prompt.encode("click[x]") == "\n</think>\n\nAction: click[x]"
    assert ChatPrompt("<|assistant|>\n", True).encode("click[x]") == "Action: click[x]"


@pytest.mark.parametrize(
    ("template", "day"),
    [
        (LLAMA_3, "Today Date: 26 Jul 2024"),
        (CHANNELS, "Current date: 2024-07-26"),
        ({"default": CHANNELS, "rag": CHATML}, "Current date: 2024-07-26"),
    ],
)
def test_a_template_prints_the_same_date_for_ever(folder, template, day):
    lm = chatting(folder, template)
    text = lm.prompt(OPENED)[0].text
    assert day in text and size_of(lm)["template_date"] == "2024-07-26"
    assert "template_date" not in size_of(small_lm("float32"))
    lm.save(folder)  # a tuned model's folder: once is enough
    again = load_model(folder, chat=lambda tokenizer: replace(lm.style, tokenizer=tokenizer))
    assert again.prompt(OPENED)[0].text == text
    assert again.tokenizer.chat_template == lm.tokenizer.chat_template


def test_a_clock_that_is_asked_otherwise():
    macro = templates._stopped_clock()
    tokenizer = small_lm("float32").tokenizer
    tokenizer.chat_template = (
        macro + "{% set how = '%A %-d %B %Y %H:%M' %}{{ strftime_now(how) }}"
        "{{ strftime_now(format='%y') }}{{ strftime_now is defined }}"
    )
    assert tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False) == (
        "Friday 26 July 2024 00:0024True"
    )


# -- thoughts -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "thought", ["", "Thought: short.\n", "Thought: " + "a long one " * 9 + "\n"]
)
def test_the_log_probability_of_an_action_is_given_its_thought(thought, monkeypatch):
    """As long as the thought may be: the sum is over the action's tokens and its end."""
    lm = told(thoughts=True)
    words = lm.tokenizer(f"{thought}Action: click[buy now]", add_special_tokens=False)["input_ids"]
    length = len(lm.tokenizer(" click[buy now]", add_special_tokens=False)["input_ids"])
    ids = (*words, lm.end)

    def samples(self, prompts, draws, *_):
        from qvlib.models.nucleus import Sample

        sample = Sample(0, 0, None)
        sample.ids, sample.log_probs = ids, [-1.0 / 2**i for i in range(len(ids), 0, -1)]
        sample.log_prob = sum(sample.log_probs)
        return [[sample]]

    monkeypatch.setattr(LocalModel, "samples", samples)
    (proposal,) = lm.agent(1.0, 1.0).propose([Request(OPENED, 1, (0, "t", "0"))])[0]
    assert proposal.action == "click[buy now]" and proposal.cost.tokens == len(ids)
    own = [-1.0 / 2**i for i in range(length + 1, 0, -1)]
    assert proposal.log_prob == pytest.approx(sum(own), abs=1e-9)


# -- other weights under the same name -----------------------------------------------------------


def digests(folder: Path, **other) -> tuple[str, str]:
    params = make({"agent": str(folder), **other})
    return params.digest("agent"), params.digest("trees")


def test_other_weights_are_another_agent(folder):
    before, made = digests(folder), fingerprint(folder)
    assert digests(folder) == before and made is not None and len(made) == 16
    (folder / "README.md").write_text("nothing that is read")
    assert digests(folder) == before
    known = os.stat(folder / "model.safetensors")

    def nudge(tensors):
        tensors["model.norm.weight"][0] += 1

    weights(folder, nudge)
    os.utime(folder / "model.safetensors", ns=(known.st_atime_ns, known.st_mtime_ns))
    assert (folder / "model.safetensors").stat().st_size == known.st_size
    after = digests(folder)
    assert all(a != b for a, b in zip(before, after, strict=True))
    change(folder / "tokenizer_config.json", chat_template=CHATML)
    assert digests(folder)[0] not in (before[0], after[0])
    shutil.copytree(folder, folder.with_name("copy"))
    assert fingerprint(folder.with_name("copy")) == fingerprint(folder)


def test_a_large_file_is_hashed_once_for_all_processes(folder, tmp_path, monkeypatch):
    made, read = fingerprint(folder), []
    monkeypatch.setattr("qvlib.models.fingerprint.LARGE", 1000)
    monkeypatch.setenv("QVLIB_CACHE", str(tmp_path / "cache"))
    really = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda *of: read.append(of[0].name) or really(*of))

    def anew() -> list[str]:
        """The files that another process reads."""
        read.clear()
        _hash.cache_clear()
        assert fingerprint(folder) == made
        return [name for name in read if name.endswith("model.safetensors")]

    assert (len(anew()), len(anew())) == (1, 0)
    os.utime(folder / "model.safetensors")
    assert (len(anew()), len(anew())) == (1, 0)
    for note in (tmp_path / "cache" / "hashes").iterdir():
        note.write_text("torn")
    assert (len(anew()), len(anew())) == (1, 0)
    monkeypatch.setenv("QVLIB_CACHE", str(folder / "model.safetensors"))  # no folder can be there
    assert (len(anew()), len(anew())) == (1, 1)


def test_what_names_no_files_has_the_digest_of_its_name():
    for name in ("small", "smollm2", "api:gpt-4o-mini", "microsoft/phi-1_5"):
        assert fingerprint(name) is None
        assert make({"agent": name, "q_base": "smollm2"})._models({"agent": name}) == {}


def test_the_q_models_base_and_the_second_agent_count_too(folder, whole):
    def all_of(**given):
        params = make({"q_base": str(folder), "other_agent": str(folder), **given})
        return [params.digest(stage) for stage in ("agent", "other_agent", "q_model")]

    before = all_of()
    weights(folder, lambda tensors: tensors["model.norm.weight"].add_(1))
    after = all_of()
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, False]


def test_code_of_ones_own_is_in_the_digest_where_it_is_run(folder):
    before = digests(folder)
    assert digests(folder, pickled_weights=True) == digests(folder, trust_remote_code=False)
    assert digests(folder, trust_remote_code=True)[0] != before[0]
