"""Training that is short, diverges, is killed or finds the disk full; what it keeps and deletes."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from test_chat import told
from test_dpo import SETTINGS, preference
from test_several_processes import prepared
from test_small_model import SHOWN
from test_warm_start import DECISIONS, tune
from toy import small_lm, states

from qvlib import pipeline
from qvlib.agents import fine_tuning
from qvlib.agents.fine_tuning import transcripts
from qvlib.base.errors import QvlibError
from qvlib.estimators import step_dpo_loop, step_dpo_trl
from qvlib.estimators.data import encode_pairs
from qvlib.models import small, training
from qvlib.models.saving import saving
from qvlib.models.trainers import rows_of_pass
from qvlib.pipeline import q
from qvlib.pipeline.context import Context
from qvlib.pipeline.q import train_q
from qvlib.runs.stage import is_complete, read_stage, stage_path

pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")


@pytest.fixture(scope="module")
def lm():
    return small_lm("float32")


@pytest.fixture(scope="module")
def pairs(lm):
    shops = states(20, seed=2)
    return encode_pairs(lm, shops, [preference(s, i) for i, s in enumerate(shops)])


def same(one, other) -> bool:
    """Whether two models have the same weights to the last bit."""
    ours, theirs = one.state_dict(), other.state_dict()
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


# -- cloning: any number of batches -----------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer():
    torch.set_num_threads(1)
    return small.train_tokenizer(SHOWN, 400)


def cloned(tokenizer, shown=SHOWN, folder=None, **changes):
    """(model, curve) of a tiny agent."""
    model = small.make_model(tokenizer, 16, 1, 2, seed=0)
    how = {"epochs": 1, "lr": 1e-2, "batch": 1, "seed": 0, **changes}
    return model, list(small.clone(model, tokenizer, shown, **how, folder=folder))


@pytest.mark.parametrize("batches", [1, 2, 9, 10, 11, 20])
def test_any_number_of_batches_is_cloned(tokenizer, batches):
    model, curve = cloned(tokenizer, SHOWN[:batches])
    assert len(curve) == batches and {row["steps"] for row in curve} == {batches}
    start = small.make_model(tokenizer, 16, 1, 2, seed=0)
    moved = (model.model.embed_tokens.weight - start.model.embed_tokens.weight).abs().max()
    assert moved > 1e-3


def rates(steps: int) -> list[float]:
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    schedule = small._one_cycle(optimizer, 1.0, steps)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step() if len(found) < steps else None
    return found


def test_the_rate_rises_for_a_tenth_and_falls():
    assert max(rates(1)) > 0.5
    assert rates(10)[0] == pytest.approx(1.0, abs=1e-6) and rates(10)[-1] < 1e-4
    for steps in (10, 11, 40, 95):
        found, peak = rates(steps), steps // 10
        assert max(found) > 0.97 and found.index(max(found)) <= peak
        assert found[peak:] == sorted(found[peak:], reverse=True)


def test_a_warm_start_of_one_batch_learns(tmp_path):
    lm = told()
    tuned, curve, _ = tune(lm, tmp_path, list(transcripts(lm, DECISIONS)), epochs=1)
    assert len(curve) == 1 and not same(tuned.model, lm.model)


# -- training that diverges -------------------------------------------------------------------


def test_training_that_diverges_stops_at_once(lm, pairs, tokenizer, tmp_path):
    wild = {**SETTINGS, "lr": 1e30, "epochs": 3}
    message = r"DPO, (step [1-9]\d* of 9|after its last step): training diverged, .*lower dpo_lr"
    for train, more in (
        (step_dpo_loop.train, {}),
        (step_dpo_trl.train, {"folder": tmp_path / "trl"}),
        (step_dpo_trl.train, {"folder": tmp_path / "lora", "lora_rank": 2}),
    ):
        with pytest.raises(QvlibError, match=message) as caught:
            train(lm, pairs, (), **wild, **more)
        assert len(str(caught.value)) < 300 and "\n" not in str(caught.value)
    with pytest.raises(QvlibError, match=r"cloning, step .* lower clone_lr \(now 1e\+30\)"):
        cloned(tokenizer, lr=1e30)
    with pytest.raises(QvlibError, match=r"warm start, .* diverged.* lower warm_lr"):
        tune(told(), tmp_path / "warm", lr=1e30)
    with pytest.raises(QvlibError, match=r"RFT, .* diverged.* lower rft_lr"):
        tune(told(), tmp_path / "rft", lr=1e30, label="RFT", rate="rft_lr")


def test_weights_that_the_last_step_spoilt_are_told(lm, pairs, monkeypatch):
    def spoil(model, optimizer, losses, schedule=None, longest=1.0):
        for loss in losses:
            loss.backward()
        with torch.no_grad():
            model.lm_head.weight.fill_(float("nan"))

    monkeypatch.setattr(step_dpo_loop, "descend", spoil)
    with pytest.raises(QvlibError, match="DPO, after its last step: training diverged"):
        step_dpo_loop.train(lm, pairs[:8], (), **SETTINGS)


# -- training that is killed ------------------------------------------------------------------


class Killed(Exception):
    pass


@contextmanager
def killed_at(step: int) -> Iterator[None]:
    """A plain loop that dies in its step of that number."""
    done = []

    def dies(model, optimizer, losses, schedule=None, longest=1.0):
        done.append(1)
        if len(done) > step:
            raise Killed
        return training.descend(model, optimizer, losses, schedule, longest)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        for module in (small, step_dpo_loop):
            patch.setattr(module, "descend", dies)
        yield


@contextmanager
def counted(module) -> Iterator[list[int]]:
    """The steps that a plain loop takes."""
    steps = []

    def descend(*arguments, **options):
        steps.append(1)
        return training.descend(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "descend", descend)
        yield steps


@pytest.mark.parametrize("stop", [1, 15])
def test_cloning_goes_on_after_a_kill(tokenizer, tmp_path, stop):
    """24 steps in 4 epochs, kept every second: the same weights and curve to the last bit."""
    how = {"epochs": 4, "batch": 4}
    model, curve = cloned(tokenizer, **how)
    with killed_at(stop):
        cloned(tokenizer, folder=tmp_path, **how)
    with counted(small) as steps:
        resumed, again = cloned(tokenizer, folder=tmp_path, **how)
    assert len(steps) == 24 - stop // 2 * 2
    assert again == curve and same(model, resumed) and not resumed.training
    with counted(small) as steps:
        cloned(tokenizer, folder=tmp_path, **how, lr=2e-2)
    assert len(steps) == 24  # another training does not take it


@pytest.mark.parametrize("stop", [2, 3, 7])
def test_the_plain_loop_goes_on_after_a_kill(lm, pairs, tmp_path, stop):
    """3 steps an epoch, each kept: within an epoch, at its end, and in the last one."""
    how = {**SETTINGS, "epochs": 3}
    policy, curve = step_dpo_loop.train(lm, pairs, pairs[:5], **how)
    with killed_at(stop):
        step_dpo_loop.train(lm, pairs, pairs[:5], **how, folder=tmp_path)
    with counted(step_dpo_loop) as steps:
        resumed, again = step_dpo_loop.train(lm, pairs, pairs[:5], **how, folder=tmp_path)
    assert len(steps) == 9 - stop and again == curve and same(policy.model, resumed.model)
    assert [row["split"] for row in curve] == (["train"] * 3 + ["held-out"]) * 3


def test_a_broken_checkpoint_is_told(tokenizer, tmp_path):
    with killed_at(10):
        cloned(tokenizer, folder=tmp_path)
    (file,) = tmp_path.glob("checkpoints-*")
    for content in (file.read_bytes()[:-100], b"", b"{}"):
        file.write_bytes(content)
        with pytest.raises(QvlibError, match="no checkpoint of this training can be read; delete"):
            cloned(tokenizer, folder=tmp_path)


def test_models_that_are_fitted_are_not_fitted_again(tmp_path, monkeypatch):
    """Killed in the third model: the first two stay; nothing of any training is left over."""
    how = {"trainer": "loop", "control_shuffles": 3, "processes": 1}
    whole, params = (prepared(tmp_path / name, **how) for name in ("whole", "killed"))
    train_q(whole)
    fitted, fit_model = [], q.fit_model

    def dies(context, which, name, scratch):
        if len(fitted) == 3:
            raise Killed
        fitted.append(name)
        return fit_model(context, which, name, scratch)

    monkeypatch.setattr(q, "fit_model", dies)
    with pytest.raises(Killed):
        train_q(params)
    assert fitted == ["model", "model-0", "model-1"] and not is_complete(params, "control")
    fitted.clear()
    train_q(params)
    assert fitted == ["model-2"]
    for stage in ("q_model", "control"):
        ours, theirs = read_stage(params, stage), read_stage(whole, stage)
        assert ours.facts == theirs.facts
        assert not list(ours.path.glob("*-training"))
        for curve in theirs.path.glob("curve*"):
            assert (ours.path / curve.name).read_bytes() == curve.read_bytes()
        for weights in theirs.path.rglob("*.safetensors"):
            ours_at = ours.path / weights.relative_to(theirs.path)
            assert ours_at.read_bytes() == weights.read_bytes()


# -- memory -----------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [True, False])
def test_no_pass_holds_more_tokens_than_asked(pairs, packed):
    """The policy's, the reference's and those of what is held out; but a pair goes as it is."""
    lm, seen = small_lm("float32", batch_tokens=250), []
    count = lm.model.register_forward_pre_hook(
        lambda model, args, inputs: seen.append(inputs["input_ids"].shape), with_kwargs=True
    )
    step_dpo_loop.train(lm, pairs, pairs[:9], **SETTINGS, packed=packed)
    count.remove()
    alone = 1 if packed else 2
    assert all(rows == alone or rows * width <= 250 for rows, width in seen)
    assert max(rows for rows, _ in seen) > alone


def test_rows_of_a_pass():
    found = [rows_of_pass(30, 12, tokens) for tokens in (1, 30, 60, 100, 119, 10_000)]
    assert found == [1, 1, 2, 3, 3, 12]


# -- the disk ---------------------------------------------------------------------------------


@contextmanager
def full_disk(size: int = 20_000) -> Iterator[None]:
    """A real limit on the size of a file, which stands for a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def saved(tokenizer, folder) -> None:
    with saving(folder):
        tokenizer.save_pretrained(folder)


def test_a_full_disk_is_told_in_one_line(lm, pairs, tokenizer, tmp_path):
    written = {
        "model": lambda: lm.save(tmp_path / "model"),
        "tokenizer": lambda: saved(lm.tokenizer, tmp_path / "tokenizer"),
        "trl": lambda: step_dpo_trl.train(lm, pairs, (), **SETTINGS, folder=tmp_path / "trl"),
        "clone": lambda: cloned(tokenizer, folder=tmp_path / "clone"),
        "loop": lambda: step_dpo_loop.train(lm, pairs, (), **SETTINGS, folder=tmp_path / "loop"),
    }
    for name, write in written.items():
        with full_disk(), pytest.raises(QvlibError) as caught:
            write()
        told_so = str(caught.value)
        assert name in told_so and "cannot be written: " in told_so, name
        assert "run again, everything finished is kept" in told_so
        assert "\n" not in told_so and len(told_so) < 300


def test_a_model_that_cannot_be_kept_leaves_the_stage_open(tmp_path):
    params = prepared(tmp_path / "runs", trainer="loop", processes=1)
    with full_disk(), pytest.raises(QvlibError, match="cannot be written"):
        train_q(params)
    assert not is_complete(params, "q_model")
    train_q(params)
    assert is_complete(params, "q_model")


def test_a_model_that_is_gone_is_told(tmp_path):
    params = prepared(tmp_path / "runs", trainer="loop", processes=1)
    train_q(params)
    for stage, name, load in (
        ("q_model", "model", lambda: Context(params).q_model()),
        ("control", "model-0", lambda: Context(params).control(0)),
    ):
        folder = stage_path(params, stage) / name
        folder.rename(folder.with_name("elsewhere"))
        words = rf"{name}\S* is gone.*; restore it, or delete the folder"
        with pytest.raises(QvlibError, match=words):
            load()


def test_a_cloned_agent_that_is_gone_is_told(tmp_path):
    params = pipeline.params.make(
        {
            "catalogue_products": 200,
            "catalogue_seed": 3,
            "demonstrations": 10,
            "other_demonstrations": 0,
            "agent_width": 16,
            "agent_layers": 1,
            "agent_heads": 2,
            "vocabulary": 500,
            "processes": 1,
            "runs_dir": str(tmp_path),
        }
    )
    stage = pipeline.train_agents(params)
    assert not (stage.path / "training").exists()
    (stage.path / "model").rename(stage.path / "elsewhere")
    with pytest.raises(QvlibError, match=r"model\S* is gone.*; restore it, or delete the folder"):
        Context(params).model()


# -- cores ------------------------------------------------------------------------------------


def test_fine_tuning_has_all_cores(tmp_path, monkeypatch):
    """In one chain of RFT as in a warm start, and one thread again afterwards."""
    from qvlib.pipeline import agents, rft

    seen = []
    monkeypatch.setattr(
        fine_tuning, "fine_tune", lambda *a, **k: seen.append(torch.get_num_threads()) or 1 / 0
    )
    params = prepared(tmp_path / "runs", rft=True)
    monkeypatch.setattr(rft, "load_trees", lambda params: [])
    monkeypatch.setattr(rft, "best_episodes", lambda trees, least: [])
    for module in (agents, rft):
        monkeypatch.setattr(module, "processes", lambda params: 2)
    monkeypatch.setattr(rft.np, "mean", lambda values: 0.0)
    with pytest.raises(ZeroDivisionError):
        pipeline.train_rft(params)
    assert seen == [2]
