"""Policy and reference in one model: the adapter is on for the policy's calls alone."""

from __future__ import annotations

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from toy import small_lm, states

from qvlib import pipeline
from qvlib.base.errors import QvlibError
from qvlib.estimators import Card
from qvlib.estimators import step_dpo_trl as trl_training
from qvlib.estimators.data import PairIds
from qvlib.estimators.log_ratio import LogRatio
from qvlib.models.adapters import Switched, is_adapter
from qvlib.pipeline.cards import model_card
from qvlib.pipeline.context import Context
from qvlib.pipeline.params import make
from qvlib.pipeline.q import fit
from qvlib.runs.stage import read_stage

SHOPS = states(6)
ACTIONS = [[*shop.admissible[1:]] for shop in SHOPS]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """(adapter's folder, merged policy): two of them, of other data."""
    lm, found = small_lm("float32"), []
    for k in range(2):
        rows = [
            PairIds(ids, lm.action_ids(prompt, a[k]), lm.action_ids(prompt, a[k - 1]))
            for (prompt, ids), a in zip(lm.prompts(SHOPS), ACTIONS, strict=True)
        ]
        folder = tmp_path_factory.mktemp(f"adapter{k}")
        merged, _ = trl_training.train(
            lm,
            rows,
            (),
            beta=0.1,
            lr=3e-2,
            epochs=2,
            batch=3,
            rule="sum",
            seed=k,
            lora_rank=4,
            folder=folder,
        )
        assert is_adapter(folder / "adapter") and not is_adapter(folder)
        assert {f.suffix for f in (folder / "adapter").iterdir()} <= {
            ".json",
            ".safetensors",
            ".md",
        }
        found.append((folder / "adapter", merged))
    return found


def pickled(file):
    torch.save(load_file(file), file.with_name("adapter_model.bin"))
    file.unlink()


def less_one(file):
    tensors = load_file(file)
    tensors.pop(min(tensors))
    save_file(tensors, file)


def no_number(file):
    tensors = load_file(file)
    tensors[min(tensors)][0, 0] = float("nan")
    save_file(tensors, file)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (pickled, "no adapter can be read from adapter_model.safetensors"),
        (less_one, "1 weights of its adapter are missing, such as base_model.model."),
        (no_number, "holds numbers that are not finite"),
        (lambda file: file.write_bytes(b"{"), "no adapter can be read"),
    ],
)
def test_an_adapter_that_is_not_whole_is_refused(tuned, tmp_path, spoil, words):
    folder = tmp_path / "adapter"
    shutil.copytree(tuned[0][0], folder)
    spoil(folder / "adapter_model.safetensors")
    base = small_lm("float32").model
    before = all_logits(base)
    with pytest.raises(QvlibError) as error:
        Switched(base, folder)
    assert torch.equal(all_logits(base), before)
    assert words in str(error.value) and str(folder) in str(error.value)
    assert "\n" not in str(error.value) and len(str(error.value)) <= 300


def all_logits(model) -> torch.Tensor:
    ids = torch.tensor([range(20, 60)])
    with torch.no_grad():
        return model(input_ids=ids).logits


def test_the_reference_does_not_move_by_a_bit(tuned):
    lm = small_lm("float32")
    before, scores = all_logits(lm.model), lm.log_probs([(1, 2, 3)], [[(4, 5)]])
    policies = [lm.tuned(Switched(lm.model, folder)) for folder, _ in tuned]
    assert torch.equal(all_logits(lm.model), before)
    for policy in policies:
        assert not torch.allclose(all_logits(policy.model), before, atol=1e-3)
        assert torch.equal(all_logits(lm.model), before)
    lm.forget()
    assert lm.log_probs([(1, 2, 3)], [[(4, 5)]]) == scores
    with pytest.raises(ValueError):
        policies[0].model(nonsense=1)
    assert torch.equal(all_logits(lm.model), before)  # a call that fails leaves the adapter off too


def test_switched_on_it_is_the_merged_model(tuned):
    lm = small_lm("float32")
    for folder, merged in tuned:
        score = LogRatio(lm.tuned(Switched(lm.model, folder)), lm).score(SHOPS, ACTIONS)
        expected = LogRatio(merged, small_lm("float32")).score(SHOPS, ACTIONS)
        for row, other in zip(score, expected, strict=True):
            assert row == pytest.approx(other, abs=1e-4)
        assert max(abs(q) for row in score for q in row) > 0.05


def test_a_path_may_hold_dots(tuned, tmp_path):
    folder = shutil.copytree(tuned[0][0], tmp_path / "john.doe" / "model.v1")
    plain, dotted = (Switched(small_lm("float32").model, at) for at in (tuned[0][0], folder))
    assert torch.equal(all_logits(dotted), all_logits(plain))


def test_it_has_what_a_local_model_asks_of_a_model(tuned):
    lm = small_lm("float32")
    policy = lm.tuned(Switched(lm.model, tuned[0][0]))
    assert policy.model.device == lm.model.device and policy.model.config is lm.model.config
    assert policy.model.dtype == torch.float32 and policy.ends == lm.ends
    assert [len(row) for row in policy.sample([(1, 2, 3)], [[None, None]], 1.0, 0.9)] == [2]


@pytest.mark.parametrize("rank", [0, 4])
def test_a_run_keeps_its_q_model_with_a_card(undisturbed, rank):
    params = undisturbed.replace(trainer="trl", lora_rank=rank, dpo_epochs=1)
    context = pipeline.context_of(params)
    fit([(context, "q_model")])
    stage = read_stage(params, "q_model")
    folder = stage.path / "model"
    assert is_adapter(folder) == bool(rank) and not list(folder.rglob("*.bin"))
    assert not list(stage.path.glob("*-training"))  # what the training kept
    card = (folder / "README.md").read_text()
    held = stage.facts["held_out_accuracy"]
    assert (
        f"{held:.1%} of {stage.facts['held_out_pairs']} held-out pairs" in card
        and f"beta {params.estimator.beta:g}" in card
    )
    assert f"pairs-{params.digest('pairs')}" in card and ("LoRA of rank 4" in card) == bool(rank)
    agent, q = context.model(), context.q_model()
    assert q.reference is agent and (q.policy.model.device == agent.model.device)
    state = context.environment.reset(context.environment.tasks("train")[0])
    plain = agent.prompt(state)[1]
    scores = q.score([state], [["search[wool sweater]", "search[tea]"]])[0]
    assert len(set(scores)) == 2 and all(abs(s) > 1e-6 for s in scores)
    agent.forget()
    before = agent.log_probs([plain], [[(5, 6)]])
    assert before == Context(params).model().log_probs([plain], [[(5, 6)]])


def test_a_card_tells_that_the_reference_was_fine_tuned():
    facts = {"control": False, "held_out_pairs": 0, "held_out_accuracy": None}
    method = Card("transformers", ("dpo",), "Q is in nats.", "by hand")
    warm = make({"agent": "smollm2", "warm_start": True})
    card = model_card(warm, facts, method)
    stage = f"stage `agent-{warm.digest('agent')}`"
    assert f"| base | smollm2, fine-tuned on demonstrations ({stage}) |" in card
    assert "\nQ is in nats.\n" in card and "| fitted by | by hand |" in card
    for params in (
        warm.replace(warm_start=False),
        warm.replace(q_base="smollm2"),
    ):
        assert "| base | smollm2 |" in model_card(params, facts, method)
