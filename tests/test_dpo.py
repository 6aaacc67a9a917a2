"""The step-level DPO loss, what it is computed on, and its two trainers."""

from __future__ import annotations

import functools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import small_lm, states
from trl.trainer.dpo_trainer import DataCollatorForPreference

from qvlib.base.errors import QvlibError
from qvlib.core.dpo import dpo_loss
from qvlib.core.preferences import Pair
from qvlib.core.types import State, Step, Task
from qvlib.estimators import data
from qvlib.estimators import step_dpo_loop as dpo
from qvlib.estimators import step_dpo_trl as trl_training
from qvlib.estimators.data import PairIds, action_log_probs, encode_pairs, pair_log_probs
from qvlib.estimators.log_ratio import LogRatio
from qvlib.models.trainers import rows_of_pass

pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")
LN2 = math.log(2)
SETTINGS = {
    "beta": 0.1,
    "lr": 3e-3,
    "epochs": 1,
    "batch": 8,
    "rule": "sum",
    "seed": 0,
    "schedule": "linear",
}


@pytest.fixture(scope="module")
def lm():
    return small_lm()


def preference(shop, i):
    """A taste that can be learnt: items are better than searching, searching than going back."""
    good, bad = (
        (shop.admissible[2], "search[red cotton]"),
        ("search[oak table]", "click[back to search]"),
    )[i % 2]
    return Pair(shop.task.id, "", (), good, bad, 1.0, 0.0, 2, 2)


@pytest.fixture(scope="module")
def pairs(lm):
    shops = states(48, seed=2)
    return encode_pairs(lm, shops, [preference(s, i) for i, s in enumerate(shops)])


@pytest.fixture(scope="module")
def held_out(lm):
    shops = states(13, seed=3)
    return encode_pairs(lm, shops, [preference(s, i) for i, s in enumerate(shops)])


def four(lm, rows, rule):
    with torch.no_grad():
        return dpo._both(lm.model, rows, rule, lm.end, 5, lm.batch_tokens)


# -- the loss ---------------------------------------------------------------------------------


def test_closed_form():
    t = torch.tensor
    loss = dpo_loss(t([-1.0, -2.0]), t([-3.0, -1.0]), t([-1.5, -2.0]), t([-2.0, -4.0]), 0.5)
    margins = [0.5 * ((-1 + 1.5) - (-3 + 2)), 0.5 * ((-2 + 2) - (-1 + 4))]
    np.testing.assert_allclose(loss, [math.log(1 + math.exp(-m)) for m in margins], rtol=1e-6)


@given(st.lists(st.floats(-50, 0), min_size=4, max_size=4), st.floats(0.01, 2))
def test_loss_properties(values, beta):
    w, r, rw, rr = (torch.tensor([v], dtype=torch.float64) for v in values)
    loss = dpo_loss(w, r, rw, rr, beta)
    swapped = dpo_loss(r, w, rr, rw, beta)
    gap = beta * ((w - rw) - (r - rr))
    assert torch.allclose(loss - swapped, -gap, atol=1e-9)  # -log s(x) + log s(-x) = -x
    assert torch.allclose(
        dpo_loss(w, r, w, r, beta), torch.tensor(LN2, dtype=torch.float64), atol=1e-12
    )
    assert torch.allclose(dpo_loss(w - 3, r - 3, rw, rr, beta), loss, atol=1e-9)


@pytest.mark.parametrize("rule", ["sum", "mean"])
def test_log_probs_of_actions_by_hand(lm, pairs, rule):
    rows = [(p.prompt, p.chosen) for p in pairs[:6]]
    with torch.no_grad():
        batched = action_log_probs(lm.model, rows, rule, lm.end)
        for (prompt, action), got in zip(rows, batched, strict=True):
            log_p = torch.log_softmax(
                lm.model(input_ids=torch.tensor([prompt + action])).logits[0], -1
            )
            tokens = [float(log_p[len(prompt) + i - 1, token]) for i, token in enumerate(action)]
            assert float(got) == pytest.approx(
                sum(tokens) / (len(tokens) if rule == "mean" else 1), abs=1e-10
            )
    assert len({len(p) for p, _ in rows}) > 1 and len({len(a) for _, a in rows}) > 1


# -- what is trained on -----------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["sum", "mean"])
def test_packed_pairs_are_those_of_separate_passes(lm, pairs, rule):
    """The two actions share the prompt and do not see each other.

    Neither padding nor the order of rows matters.
    """
    chosen, rejected = pair_log_probs(lm.model, pairs, rule, lm.end)
    for found, actions in (
        (chosen, [p.chosen for p in pairs]),
        (rejected, [p.rejected for p in pairs]),
    ):
        alone = [
            action_log_probs(lm.model, [(p.prompt, a)], rule, lm.end)
            for p, a in zip(pairs, actions, strict=True)
        ]
        torch.testing.assert_close(found, torch.cat(alone), atol=1e-5, rtol=0)
    swapped = [replace(p, chosen=p.rejected, rejected=p.chosen) for p in pairs]
    torch.testing.assert_close(
        torch.stack(pair_log_probs(lm.model, swapped, rule, lm.end)),
        torch.stack((rejected, chosen)),
        atol=1e-5,
        rtol=0,
    )
    single = [pair_log_probs(lm.model, [p], rule, lm.end)[0] for p in pairs]
    torch.testing.assert_close(torch.cat(single), chosen, atol=1e-5, rtol=0)


def test_trained_tokens_are_exactly_the_action(lm):
    """What TRL puts a loss on, decoded: the action's words and the end token, and nothing else."""
    shops = states(12, seed=2)
    chosen = [preference(s, i) for i, s in enumerate(shops)]
    rows = encode_pairs(lm, shops, chosen)
    collator = DataCollatorForPreference(pad_token_id=lm.end)
    batch = collator(
        [
            {
                "prompt_ids": list(r.prompt),
                "chosen_ids": list(r.chosen),
                "rejected_ids": list(r.rejected),
            }
            for r in rows
        ]
    )
    for i, shop in enumerate(shops):
        prompt, ids = lm.prompt(shop)
        for action, row in ((chosen[i].chosen, i), (chosen[i].rejected, i + len(rows))):
            trained = batch["input_ids"][row][batch["completion_mask"][row] == 1].tolist()
            assert trained[-1] == lm.end and lm.tokenizer.decode(trained[:-1]) == prompt.encode(
                action
            )
            assert prompt.decode(lm.tokenizer.decode(trained[:-1])) == action
            seen = batch["input_ids"][row][
                (batch["completion_mask"][row] == 0) & (batch["attention_mask"][row] == 1)
            ]
            assert tuple(seen.tolist()) == ids and lm.tokenizer.decode(seen) == prompt.text


def starts_with_its_prompt(lm, state: State, action: str) -> None:
    prompt, ids = lm.prompt(state)
    together = lm.tokenizer(prompt.text + prompt.encode(action), add_special_tokens=False)[
        "input_ids"
    ]
    assert tuple(together[: len(ids)]) == ids
    assert (*together[len(ids) :], lm.end) == lm.action_ids(prompt, action)


def test_prompt_is_a_prefix_of_prompt_and_action(lm):
    for state in states(60, seed=4):
        for action in state.admissible:
            starts_with_its_prompt(lm, state, action)


HOSTILE = st.text(st.characters(codec="utf-8"), max_size=25) | st.sampled_from(
    [
        "<act>",
        "<end>",
        " <task> <page>",
        "#1 #2",
        "click[]",
        "search[a [SEP] b]",
        "b012345678",
        "\n\t",
        "ｆｕｌｌ ｗｉｄｔｈ",
        "é́",
        "🙂🙂",
    ]
)


@settings(max_examples=150, deadline=None)
@given(instruction=HOSTILE, page=HOSTILE, did=HOSTILE, action=HOSTILE)
def test_prompt_is_a_prefix_whatever_the_texts(lm, instruction, page, did, action):
    state = State(
        Task("t", instruction),
        page,
        (Step(f"search[{did}]", page),),
        ("search[<query>]", "click[buy now]"),
    )
    starts_with_its_prompt(lm, state, action)
    starts_with_its_prompt(lm, state, f"search[{action}]")


# -- the trainers -----------------------------------------------------------------------------


def trl(lm, pairs, held_out, folder, rank=0, **changes):
    return trl_training.train(
        lm, pairs, held_out, **SETTINGS | changes, lora_rank=rank, folder=folder
    )


def weights(lm):
    return {k: v.clone() for k, v in lm.model.state_dict().items()}


@pytest.mark.parametrize("rule", ["sum", "mean"])
def test_loss_equals_trls_on_the_same_batch(lm, pairs, tmp_path, rule):
    """TRL's own, unchanged compute_loss on a policy that has moved, against ours.

    TRL's logarithms are float32.
    """
    trainer = trl_training.make_trainer(
        lm, pairs[:9], (), **{**SETTINGS, "rule": rule}, lora_rank=0, folder=tmp_path, label=""
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in trainer.model.parameters():
            p += 0.05 * p.abs().mean() * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(9)])
    theirs = trl_training.DPOTrainer.compute_loss(trainer, trainer.model, batch)
    rows = [(p.prompt, p.chosen) for p in pairs[:9]] + [(p.prompt, p.rejected) for p in pairs[:9]]
    moved = action_log_probs(trainer.model, rows, rule, lm.end)
    ours = dpo_loss(moved[:9], moved[9:], *four(lm, pairs[:9], rule), 0.1).mean()
    assert abs(ours.item() - LN2) > 1e-3
    assert theirs.item() == pytest.approx(ours.item(), abs=1e-6)
    got = torch.autograd.grad(theirs, trainer.model.lm_head.weight)[0]
    want = torch.autograd.grad(ours, trainer.model.lm_head.weight)[0]
    assert torch.allclose(got, want, atol=1e-6 * float(want.abs().max()) + 1e-9, rtol=1e-4)


@pytest.mark.parametrize("rule", ["sum", "mean"])
def test_both_trainers_give_the_same_curve(lm, pairs, held_out, tmp_path, rule):
    changes = {"rule": rule, "epochs": 2}
    before = weights(lm)
    looped, a = dpo.train(lm, pairs, held_out, **SETTINGS | changes)
    full, b = trl(lm, pairs, held_out, tmp_path, **changes)
    assert all(torch.equal(v, before[k]) for k, v in lm.model.state_dict().items())
    for x, y in zip(a, b, strict=True):
        assert (x["step"], x["split"], x["pairs"]) == (y["step"], y["split"], y["pairs"])
        for key in ("loss", "margin", "log_prob_chosen", "log_prob_rejected"):
            assert x[key] == pytest.approx(y[key], abs=2e-5), key
    assert [r["split"] for r in a] == (["train"] * 6 + ["held-out"]) * 2
    assert a[6]["pairs"] == 13 and a[0]["pairs"] == 8
    for p, q in zip(looped.model.parameters(), full.model.parameters(), strict=True):
        assert torch.allclose(p, q, atol=1e-4)


def test_a_batch_in_several_passes_is_the_same_batch(lm, pairs, held_out, tmp_path):
    """In pieces of at most 200 tokens, as memory may demand: the curve of one pass, to rounding."""
    cut = small_lm()
    cut.batch_tokens = 200
    assert [len(pairs[:8][part]) for part in data.passes(pairs[:8], 200)] != [8]
    assert rows_of_pass(2 * max(pair.longest for pair in pairs), 8, 200) in (1, 2, 4)
    whole = dpo.train(lm, pairs, held_out, **SETTINGS)[1]
    for curve in (
        dpo.train(cut, pairs, held_out, **SETTINGS)[1],
        trl(cut, pairs, held_out, tmp_path)[1],
    ):
        for x, y in zip(curve, whole, strict=True):
            assert (x["step"], x["split"], x["pairs"]) == (y["step"], y["split"], y["pairs"])
            assert (x["loss"], x["margin"]) == pytest.approx((y["loss"], y["margin"]), abs=2e-5)


def test_passes_hold_every_row_once_and_no_more_tokens_than_asked():
    rows = [PairIds((1,) * n, (2,), (3,)) for n in (3, 8, 1, 1, 30, 2, 2)]
    parts = [rows[part] for part in data.passes(rows, 20)]
    assert [len(p.prompt) for part in parts for p in part] == [3, 8, 1, 1, 30, 2, 2]
    assert [len(part) for part in parts] == [2, 2, 1, 2]  # 2 x 10, 2 x 3, 32 alone, 2 x 4


def test_first_row_is_ln_2_and_training_helps(lm, pairs, held_out, tmp_path):
    runs = {
        "loop": dpo.train(lm, pairs, held_out, **SETTINGS | {"epochs": 2}),
        "lora": trl(lm, pairs, held_out, tmp_path, rank=4, lr=2e-2, epochs=2),
    }
    untuned = LogRatio(lm, lm)
    shops = states(13, seed=3)
    actions = [[p.chosen, p.rejected] for p in (preference(s, i) for i, s in enumerate(shops))]
    assert untuned.score(shops, actions) == [[0.0, 0.0]] * 13
    for tuned, curve in runs.values():
        assert curve[0]["loss"] == pytest.approx(LN2, abs=1e-6) and abs(curve[0]["margin"]) < 1e-6
        train = [r["loss"] for r in curve if r["split"] == "train"]
        assert np.mean(train[-3:]) < LN2 - 0.1
        last = curve[-1]
        assert last["split"] == "held-out" and last["accuracy"] > 0.8 and last["loss"] < LN2 - 0.1
        q = np.array(LogRatio(tuned, lm).score(shops, actions))
        assert np.mean(q[:, 0] > q[:, 1]) == pytest.approx(last["accuracy"])
        assert 0.1 * np.mean(q[:, 0] - q[:, 1]) == pytest.approx(last["margin"], abs=1e-4)
        assert tuned.model.dtype == lm.model.dtype and tuned.style is lm.style


def test_reference_does_not_move_by_one_bit(lm, pairs, tmp_path):
    """In the loop the reference is the model given; with LoRA the policy with its adapter off."""
    before = four(lm, pairs[:8], "sum")
    dpo.train(lm, pairs, (), **SETTINGS)
    assert all(torch.equal(x, y) for x, y in zip(before, four(lm, pairs[:8], "sum"), strict=True))
    trainer = trl_training.make_trainer(
        lm, pairs, (), **SETTINGS, lora_rank=4, folder=tmp_path, label=""
    )
    assert trainer.ref_model is None
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(8)])
    start = trainer.compute_ref_log_probs(trainer.model, batch)
    trainer.train()
    end = trainer.compute_ref_log_probs(trainer.model, batch)
    assert all(torch.equal(x, y) for x, y in zip(start, end, strict=True))
    with torch.no_grad():
        rows = [(p.prompt, p.chosen) for p in pairs[:8]]
        assert not torch.allclose(
            action_log_probs(trainer.model, rows, "sum", lm.end), before[0], atol=1e-3
        )
    assert all(torch.equal(x, y) for x, y in zip(before, four(lm, pairs[:8], "sum"), strict=True))


def test_merged_policy_is_the_adapted_model_and_a_plain_one(lm, pairs, tmp_path):
    from peft import PeftModel

    tuned, _ = trl(lm, pairs, (), tmp_path, rank=4, lr=2e-2)
    names = {f.name for f in (tmp_path / "adapter").iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json"} <= names
    again = PeftModel.from_pretrained(small_lm().model, tmp_path / "adapter").merge_and_unload()
    rows = [(p.prompt, p.rejected) for p in pairs[:6]]
    with torch.no_grad():
        assert torch.allclose(
            action_log_probs(again, rows, "sum", lm.end),
            action_log_probs(tuned.model, rows, "sum", lm.end),
            atol=1e-9,
        )
    assert set(tuned.model.state_dict()) == set(lm.model.state_dict())
    # The policy can be tuned further: no part of TRL is left in it.
    further, curve = dpo.train(tuned, pairs[:8], (), **SETTINGS)
    assert curve[0]["loss"] == pytest.approx(LN2, abs=1e-9)
    assert not torch.equal(next(further.model.parameters()), next(tuned.model.parameters()))
    assert "forward" not in vars(tuned.model)


@pytest.mark.parametrize(("rank", "stop"), [(0, 3), (4, 8)])
def test_a_killed_training_goes_on(lm, pairs, held_out, tmp_path, rank, stop, monkeypatch):
    """Killed in the first or the second epoch, and with a checkpoint half written.

    The policy and the curve are the same.
    """
    whole, curve = trl(lm, pairs, held_out, tmp_path / "whole", rank, epochs=2)

    def dies(self, args, state, control, **_):
        self.bar.update()
        if state.global_step == stop:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(trl_training.Bar, "on_step_end", dies)
        with pytest.raises(KeyboardInterrupt):
            trl(lm, pairs, held_out, tmp_path / "killed", rank, epochs=2)
    (work,) = (tmp_path / "killed").glob("checkpoints-*")
    (work / "checkpoint-99").mkdir()
    (work / "checkpoint-99" / "model.safetensors").write_bytes(b"half")
    steps = []
    forward = trl_training.StepDPO.training_step
    monkeypatch.setattr(
        trl_training.StepDPO,
        "training_step",
        lambda *a, **k: (steps.append(1), forward(*a, **k))[1],
    )
    resumed, again = trl(lm, pairs, held_out, tmp_path / "killed", rank, epochs=2)
    assert len(steps) == 12 - (stop - 1)  # the step that was killed had not been saved
    assert again == curve
    for p, q in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(p, q)
    trl(
        lm, pairs, held_out, tmp_path / "killed", rank, epochs=1
    )  # other settings never take these checkpoints
    assert len(steps) == 12 - (stop - 1) + 6


def test_pairs_beyond_the_context_are_dropped(lm, pairs, held_out, tmp_path):
    long = PairIds(pairs[0].prompt * 60, pairs[0].chosen, pairs[0].rejected)
    limit = lm.model.config.max_position_embeddings
    assert len(long.prompt) > limit
    fits = PairIds((pairs[0].prompt * 60)[: limit - 6], (5,) * 5 + (lm.end,), (6, lm.end))
    given = [long, *pairs[:3], fits, PairIds((7, *fits.prompt), fits.chosen, fits.rejected)]
    assert data.fitting(lm, given) == [*pairs[:3], fits]
    assert (
        len(fits.prompt + fits.chosen + fits.rejected) > limit
    )  # as one row of the loop's, which is no longer for the model
    for train in (dpo.train, functools.partial(trl_training.train, folder=tmp_path)):
        _, curve = train(lm, given, [long, *held_out[:2]], **SETTINGS)
        assert [(row["split"], row["pairs"]) for row in curve] == [("train", 4), ("held-out", 2)]
        assert all(math.isfinite(row["loss"]) for row in curve)
        with pytest.raises(QvlibError, match=f"no pair fits the model's context of {limit} tokens"):
            train(lm, [long], (), **SETTINGS)


def test_ids_reach_the_model_untouched(lm, pairs, tmp_path):
    trainer = trl_training.make_trainer(
        lm, pairs, (), **SETTINGS, lora_rank=0, folder=tmp_path, label=""
    )
    for row, pair in zip(trainer.train_dataset, pairs, strict=True):
        assert (tuple(row["prompt_ids"]), tuple(row["chosen_ids"]), tuple(row["rejected_ids"])) == (
            pair.prompt,
            pair.chosen,
            pair.rejected,
        )
    first = next(iter(trainer.get_train_dataloader()))
    widest = max(len(p.prompt) + max(len(p.chosen), len(p.rejected)) for p in pairs)
    assert first["input_ids"].shape[0] == 16 and first["input_ids"].shape[1] <= widest
    assert (
        trainer.args.max_length is None
        and not trainer.args.bf16
        and not trainer.args.gradient_checkpointing
    )


def test_training_leaves_the_given_tokenizer_alone(lm, pairs, tmp_path):
    lm.tokenizer.pad_token = None
    try:
        trl(lm, pairs[:8], (), tmp_path)
        assert lm.tokenizer.pad_token is None
    finally:
        lm.tokenizer.pad_token = "<end>"
