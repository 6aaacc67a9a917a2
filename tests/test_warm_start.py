"""Fine-tuning on demonstrations: what is learnt, what is not, and that it goes on after a kill."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from test_chat import OPENED, SEARCHED, after, told

from qvlib.agents.fine_tuning import Transcript, fine_tune, transcripts
from qvlib.base.errors import QvlibError
from qvlib.models import trainers
from qvlib.models.local import LocalModel

DECISIONS = [
    (after(), "search[red shirt]"),
    (SEARCHED, "click[b012345678]"),
    (OPENED, "click[buy now]"),
]


@pytest.fixture(scope="module")
def lm() -> LocalModel:
    return told()


def test_an_episode_is_one_row_and_its_actions_are_what_is_learnt(lm):
    (row,) = transcripts(lm, DECISIONS)
    learnt, now = [], []
    for i, own in zip(row.ids, row.own, strict=True):
        now += [i] if own else []
        if now and not own:
            learnt, now = [*learnt, now], []
    texts = [lm.tokenizer.decode(part) for part in [*learnt, now]]
    assert texts == [f" {action}<|im_end|>" for _, action in DECISIONS]
    assert row.ids[: len(lm.prompt(OPENED)[1])] == lm.prompt(OPENED)[1]


def test_a_prompt_that_left_something_out_begins_a_row(lm):
    short = told(budget=lm.style.length(lm.style(OPENED).text) - 1)
    rows = list(transcripts(short, DECISIONS))
    assert len(rows) == 2 and sum(sum(row.own) for row in rows) == sum(
        sum(row.own) for row in transcripts(lm, DECISIONS)
    )
    assert len(list(transcripts(lm, DECISIONS * 2))) == 2  # the next episode does


def own_loss(lm: LocalModel, rows) -> float:
    """Mean loss of the agent's own tokens in nats, row by row without padding."""
    total = count = 0.0
    with torch.no_grad():
        for row in rows:
            ids = torch.tensor([row.ids], device=lm.model.device)
            log_probs = torch.log_softmax(lm.model(input_ids=ids).logits[0, :-1].float(), dim=-1)
            token = log_probs.gather(1, ids[0, 1:, None])[:, 0]
            own = torch.tensor(row.own[1:], device=token.device)
            total, count = total - float(token[own].sum()), count + int(own.sum())
    return total / count


def tune(lm, folder, rows=None, **options):
    rows = list(transcripts(lm, DECISIONS)) * 4 if rows is None else rows
    return fine_tune(
        lm,
        rows,
        **{
            "lr": 2e-3,
            "epochs": 4,
            "batch": 2,
            "seed": 0,
            "lora_rank": 0,
            "folder": folder,
            **options,
        },
    )


@pytest.mark.parametrize("rank", [0, 4])
def test_the_actions_get_likelier_and_the_model_given_stays(lm, tmp_path, rank):
    rows = list(transcripts(lm, DECISIONS))
    before, weights = own_loss(lm, rows), [p.clone() for p in lm.model.parameters()]
    tuned, curve, dropped = tune(lm, tmp_path, lora_rank=rank, lr=2e-2 if rank else 5e-3)
    assert dropped == 0 and len(curve) == 8
    assert curve[0]["loss"] == pytest.approx(before, abs=1e-4)  # of the actions alone
    assert own_loss(tuned, rows) < before - 1
    assert all(torch.equal(a, b) for a, b in zip(weights, lm.model.parameters(), strict=True))
    assert tuned.model.state_dict().keys() == lm.model.state_dict().keys()  # the LoRA is merged
    tuned.model.save_pretrained(tmp_path / "saved")


def test_the_same_again(lm, tmp_path):
    one, other = (tune(lm, tmp_path / name)[0].model.state_dict() for name in "ab")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_training_that_dies_goes_on(lm, tmp_path, monkeypatch):
    whole, curve, _ = tune(lm, tmp_path / "whole")

    def dies(self, args, state, control, **_):
        if state.global_step == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(trainers.Bar, "on_step_end", dies)
        tune(lm, tmp_path / "killed")
    (work,) = (tmp_path / "killed").glob("checkpoints-*")
    checkpoint = trainers.last_checkpoint(work)
    assert json.loads((Path(checkpoint) / "trainer_state.json").read_text())["global_step"] in (
        4,
        5,
    )
    resumed, again, _ = tune(lm, tmp_path / "killed")
    assert again == curve
    for name, weights in whole.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[name], weights, rtol=0, atol=1e-6)


def test_what_does_not_fit_is_left_out_and_counted(lm, tmp_path, monkeypatch):
    rows = list(transcripts(lm, DECISIONS))
    long = Transcript(rows[0].ids * 40, rows[0].own * 40)
    assert len(long.ids) > lm.model.config.max_position_embeddings
    assert tune(lm, tmp_path, [*rows, long], epochs=1)[2] == 1
    with pytest.raises(
        QvlibError, match="no demonstration fits the model's context of 2048 tokens"
    ):
        tune(lm, tmp_path / "none", [long])
