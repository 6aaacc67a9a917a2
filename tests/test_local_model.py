"""Sampling and scoring against plain full passes of the model."""

from __future__ import annotations

import shutil
import time
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from toy import small_lm, states

from qvlib.base.errors import QvlibError
from qvlib.base.seeding import generator
from qvlib.core.types import Request
from qvlib.models import local
from qvlib.models.loading import load_folder
from qvlib.models.local import LocalAgent, LocalModel
from qvlib.models.nucleus import nuclei_on_device, nucleus_of

STATES = states(6)


@pytest.fixture(scope="module")
def lm() -> LocalModel:
    return small_lm()


def fresh(lm: LocalModel, **options) -> LocalModel:
    """The same model without memories."""
    return LocalModel(lm.model, lm.tokenizer, **{"max_action_tokens": 8, **options})


def naive(lm: LocalModel, prompt, reply) -> float:
    with torch.no_grad():
        logits = lm.model(input_ids=torch.tensor([prompt + reply])).logits[0].double()
    token = torch.log_softmax(logits, -1)[len(prompt) - 1 : -1].gather(
        1, torch.tensor(reply)[:, None]
    )
    return float(token.sum())


def requests(n=3, seed=0):
    return [Request(s, n, (seed, s.task.id, "")) for s in STATES]


# -- sampling ---------------------------------------------------------------------------------


def drawn(lm, n=3, calls=None):
    """(ids, log-prob) of ``n`` samples a state; ``calls`` groups the states into calls."""
    rows = {}
    for call in calls or [range(len(STATES))]:
        prompts = [lm.prompt(STATES[i])[1] for i in call]
        draws = [[generator(i, k).random for k in range(n)] for i in call]
        rows |= dict(zip(call, lm.sample(prompts, draws, 1.0, 0.9), strict=True))
    return [rows[i] for i in range(len(STATES))]


def same(a, b):
    assert [[ids for ids, _ in row] for row in a] == [[ids for ids, _ in row] for row in b]
    np.testing.assert_allclose(
        [p for row in a for _, p in row], [p for row in b for _, p in row], atol=1e-9
    )


class Counted:
    """A method that counts its calls."""

    def __init__(self, method):
        self.method, self.calls = method, 0

    def __get__(self, owner, kind=None):
        def call(*arguments):
            self.calls += 1
            return self.method(owner, *arguments)

        return call


def test_samples_are_the_same_however_they_are_computed(lm, monkeypatch):
    base = drawn(fresh(lm))
    assert len({ids for row in base for ids, _ in row}) > 9
    same(base, drawn(fresh(lm), calls=[[i] for i in range(len(STATES))]))
    same(base, drawn(fresh(lm), calls=[[2, 5], [0], [1, 3, 4]]))
    for batch_tokens in (1, 100, 10**6):
        same(base, drawn(fresh(lm, batch_tokens=batch_tokens)))
    with monkeypatch.context() as patch:
        patch.setattr(local, "CACHES", 1)
        patch.setattr(LocalModel, "_decode", counted := Counted(LocalModel._decode))
        same(base, drawn(fresh(lm)))
        assert counted.calls == len(STATES)  # no caches of two prompts at once
    for memory in (0, 3, 10**6):
        model = fresh(lm, memory=memory)
        same(base, drawn(model))
        same(base, drawn(model))  # with what was remembered
        assert len(model._nuclei) <= memory
    same([row[:1] for row in base], drawn(fresh(lm), n=1))


def test_replies_of_several_prefills_are_extended_together(lm, monkeypatch):
    """Prompts of very different length are read apart and answered together.

    Padding costs as much as text.
    """
    prompts = [lm.prompt(STATES[0])[1], lm.prompt(STATES[1])[1] * 40]
    found, passes = {}, {}
    for name, most in (("together", local.CACHES), ("apart", 1)):
        model = fresh(lm)
        model._most_bytes, model._joins, passes[name] = most, True, Counter()
        forward = model.model.forward

        def counted(*args, _seen=passes[name], _forward=forward, **given):
            _seen["token" if given["input_ids"].shape[1] == 1 else "prompt"] += 1
            return _forward(*args, **given)

        with monkeypatch.context() as patch:
            patch.setattr(model.model, "forward", counted)
            found[name] = model.sample(
                prompts, [[generator(i, k).random for k in range(3)] for i in range(2)], 1.0, 0.9
            )
    same(found["together"], found["apart"])
    longest = [max(len(ids) for ids, _ in row) - 1 for row in found["apart"]]
    assert passes == {
        "together": {"prompt": 2, "token": max(longest)},
        "apart": {"prompt": 2, "token": sum(longest)},
    }


def test_what_is_remembered_is_not_computed_again(lm):
    model = fresh(lm)
    drawn(model)
    once = model.usage["computed_tokens"]
    drawn(model)
    assert model.usage["computed_tokens"] == once


def test_the_logits_of_a_batch_are_bounded(lm, monkeypatch):
    """A long reply among short ones makes its whole batch as wide.

    64 states of a large vocabulary would fill the memory.
    """
    ids = [lm.prompt(state)[1] for state in STATES]
    rows = [(prompt, reply) for prompt in ids for reply in ((5, 6), (7,))] + [
        (ids[3], tuple(range(5, 25)))
    ]
    model = fresh(lm)
    (together,) = model.batches(rows)
    whole = model.log_probs(ids, [[reply for prompt, reply in rows if prompt == p] for p in ids])
    size = 8 * lm.model.get_output_embeddings().weight.shape[0]
    with monkeypatch.context() as patch:
        patch.setattr(
            LocalModel,
            "_of_similar_length",
            lambda self, starts, passes: [sorted(starts, key=ids.index)],
        )
        model = fresh(lm)
        model._most_bytes = 8 * size
        parts = model.batches(rows)
        assert [row for part in parts for row in part] == sorted(
            together, key=lambda row: ids.index(row[0])
        )
        assert [len(part) for part in parts] == [
            4,
            2,
            3,
            4,
        ]  # the long reply's prompt is alone: nothing of it can be left out
        assert all(
            len(part) * max(len(reply) for _, reply in part) <= 8
            for part in parts
            if part[0][0] != ids[3]
        )
        again = model.log_probs(
            ids, [[reply for prompt, reply in rows if prompt == p] for p in ids]
        )
    for a, b in zip(whole, again, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-9)


def test_what_was_sampled_need_not_be_scored_again(lm):
    """As a reference the model has told the log-probability of its samples already."""
    prompts = [ids for _, ids in map(lm.prompt, states(4))]
    lm._scores.clear()
    draws = [[generator(0, str(i), k).random for k in range(6)] for i in range(len(prompts))]
    sampled = lm.sample(prompts, draws, 1.0, 1.0)
    before = lm.usage["computed_tokens"]
    remembered = lm.log_probs(prompts, [[ids for ids, _ in row] for row in sampled])
    assert lm.usage["computed_tokens"] == before
    lm._scores.clear()
    computed = lm.log_probs(prompts, [[ids for ids, _ in row] for row in sampled])
    for a, b in zip(remembered, computed, strict=True):
        assert a == pytest.approx(b, abs=1e-9)


def test_samples_that_part_after_what_is_remembered_share_their_prompt(lm):
    prompt = lm.prompt(STATES[0])[1]

    def replies(model, numbers):
        return model.sample([prompt], [[generator(k).random for k in numbers]], 1.0, 0.9)

    model = fresh(lm)
    replies(model, range(3))
    before = model.usage["computed_tokens"]
    again = replies(model, range(12))
    assert 0 < model.usage["computed_tokens"] - before <= len(prompt) + 12 * 8
    assert len({ids[:1] for ids, _ in again[0]}) > 2
    same(again, replies(fresh(lm), range(12)))


def test_log_prob_is_that_of_a_full_pass(lm):
    model = fresh(lm)
    for i, row in enumerate(drawn(model)):
        prompt = model.prompt(STATES[i])[1]
        for ids, log_prob in row:
            assert len(ids) <= 8 and model.end not in ids[:-1]
            assert log_prob == pytest.approx(naive(model, prompt, ids), abs=1e-9)


def test_greedy_takes_the_likeliest_token(lm):
    model = fresh(lm)
    for state, (proposal,) in zip(STATES, LocalAgent(model, 0.0).propose(requests(1)), strict=True):
        prompt, ids = model.prompt(state)
        reply = ()
        while len(reply) < 8 and model.end not in reply:
            with torch.no_grad():
                reply += (
                    int(model.model(input_ids=torch.tensor([ids + reply])).logits[0, -1].argmax()),
                )
        text = model.tokenizer.decode(
            reply[:-1] if reply[-1] == model.end else reply, skip_special_tokens=True
        )
        assert proposal.action == prompt.decode(text) and proposal.cost.tokens == len(reply)


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (1.0, 0.6), (2.0, 0.9)])
def test_frequencies_are_those_of_the_nucleus(lm, temperature, top_p):
    model, n = fresh(lm, max_action_tokens=1), 4000
    prompt = model.prompt(STATES[0])[1]
    rng = np.random.default_rng(0)
    (row,) = model.sample([prompt], [[rng.random] * n], temperature, top_p)
    with torch.no_grad():
        p = torch.softmax(
            model.model(input_ids=torch.tensor([prompt])).logits[0, -1].double() / temperature, -1
        ).numpy()
    p = np.where(np.isin(np.arange(len(p)), naive_nucleus(p, top_p)), p, 0)
    counts = Counter(ids[0] for ids, _ in row)
    assert set(counts) <= set(np.flatnonzero(p))
    common = [t for t in np.flatnonzero(p) if n * p[t] / p.sum() >= 5]
    expected = [n * p[t] / p.sum() for t in common]
    observed = [counts[t] for t in common]
    rest = n - sum(expected)
    if rest > 5:
        expected, observed = [*expected, rest], [*observed, n - sum(observed)]
    assert len(common) >= 3
    assert (
        stats.chisquare(observed, np.array(expected) * sum(observed) / sum(expected)).pvalue > 0.001
    )


def test_proposals_are_the_same_alone_and_in_a_batch(lm):
    together = LocalAgent(fresh(lm), 1.0, 0.9).propose(requests())
    for request, row in zip(requests(), together, strict=True):
        (alone,) = LocalAgent(fresh(lm), 1.0, 0.9).propose([request])
        assert [p.action for p in alone] == [p.action for p in row]
        assert [(p.cost.tokens, p.cost.prompt_tokens) for p in alone] == [
            (p.cost.tokens, p.cost.prompt_tokens) for p in row
        ]
        assert (
            row[0].cost.prompt_tokens == len(lm.prompt(request.state)[1])
            and row[1].cost.prompt_tokens == 0
        )
    other = LocalAgent(fresh(lm), 1.0, 0.9).propose(requests(seed=1))
    assert [[p.action for p in row] for row in other] != [
        [p.action for p in row] for row in together
    ]


# -- the nucleus ------------------------------------------------------------------------------


def naive_nucleus(p: np.ndarray, top_p: float) -> list[int]:
    """Most likely first, ties by token id, until the sum reaches ``top_p``."""
    kept, total = [], 0.0
    for token in sorted(range(len(p)), key=lambda i: (-p[i], i)):
        kept.append(token)
        total += p[token]
        if total >= top_p:
            break
    return kept


@settings(max_examples=150, deadline=None)
@given(
    logits=st.lists(st.integers(-12, 6), min_size=1, max_size=40),
    top_p=st.sampled_from([0.05, 0.3, 0.5, 0.9, 0.99, 1.0]),
    temperature=st.sampled_from([0.5, 1.0, 1.7]),
)
def test_nucleus_is_that_of_a_plain_sort(logits, top_p, temperature):
    log_probs = torch.log_softmax(torch.tensor(logits, dtype=torch.float64) / 2, -1).numpy()
    nucleus = nucleus_of(log_probs, temperature, top_p)
    p = np.exp((log_probs - log_probs.max()) / temperature)
    p /= p.sum()
    expected = naive_nucleus(p, top_p)
    if top_p < 1 or len(nucleus.tokens) == len(logits):
        assert nucleus.tokens.tolist() == expected[: len(nucleus.tokens)]
    assert abs(len(nucleus.tokens) - len(expected)) <= (top_p == 1)  # the sum to 1 may round
    np.testing.assert_allclose(
        np.diff(nucleus.cumulative, prepend=0),
        p[nucleus.tokens] / p[nucleus.tokens].sum(),
        atol=1e-12,
    )
    assert nucleus.cumulative[-1] == 1
    np.testing.assert_array_equal(nucleus.log_probs, log_probs[nucleus.tokens])


@pytest.mark.parametrize("top_p", [1.0, 0.95, 0.3, 1e-9])
@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_nuclei_that_a_gpu_sorts_are_the_same(top_p, temperature):
    logits = torch.randn(5, 300, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    logits[3] = logits[3].round()  # ties, which the token's id breaks
    log_probs = torch.log_softmax(3 * logits, dim=-1)
    for row, nucleus in zip(
        log_probs.numpy(), nuclei_on_device(log_probs, temperature, top_p), strict=True
    ):
        expected = nucleus_of(row, temperature, top_p)
        assert abs(len(nucleus.tokens) - len(expected.tokens)) <= (top_p == 1)  # rounding of a sum
        size = min(len(nucleus.tokens), len(expected.tokens))
        assert list(nucleus.tokens[:size]) == list(expected.tokens[:size])
        np.testing.assert_allclose(nucleus.cumulative[:size], expected.cumulative[:size], 1e-12)
        np.testing.assert_array_equal(nucleus.log_probs[:size], expected.log_probs[:size])
        assert nucleus.cumulative[-1] == 1


@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_a_reply_is_the_same_where_a_gpu_sorts(lm, monkeypatch, top_p):
    states_ids = [ids for _, ids in lm.prompts(STATES)]

    def replies() -> list:
        draws = [[generator(i, k).random for k in range(4)] for i in range(len(states_ids))]
        return fresh(lm).sample(states_ids, draws, 1.0, top_p)

    expected = replies()
    monkeypatch.setattr(
        local,
        "nucleus_of",
        lambda row, t, p: nuclei_on_device(torch.tensor(row)[None], t, p)[0],
    )
    assert [[ids for ids, _ in row] for row in replies()] == [
        [ids for ids, _ in row] for row in expected
    ]


# -- scoring ----------------------------------------------------------------------------------


def candidates(lm):
    rows = [lm.prompt(s) for s in STATES]
    replies = [
        [lm.action_ids(p, a) for a in (*s.admissible[1:], f"search[{'red cotton ' * (i % 4 + 1)}]")]
        for i, (s, (p, _)) in enumerate(zip(STATES, rows, strict=True))
    ]
    return [ids for _, ids in rows], replies


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 1e-4)])
def test_scores_are_those_of_full_passes(dtype, tolerance):
    lm = small_lm(dtype)
    prompts, replies = candidates(lm)
    assert len({len(p) for p in prompts}) > 3 and len({len(r) for rs in replies for r in rs}) > 2
    expected = [[naive(lm, p, r) for r in rs] for p, rs in zip(prompts, replies, strict=True)]
    for options in ({}, {"batch_tokens": 1}, {"batch_tokens": 120, "memory": 0}, {"memory": 3}):
        model = fresh(lm, **options)
        for _ in range(1 if options.get("batch_tokens") else 2):
            for got, want in zip(model.log_probs(prompts, replies), expected, strict=True):
                np.testing.assert_allclose(got, want, atol=tolerance)
        assert len(model._scores) <= model.memory


def test_scores_when_some_are_remembered(lm):
    prompts, replies = candidates(lm)
    model = fresh(lm)
    expected = fresh(lm).log_probs(prompts, replies)
    model.log_probs(prompts[::2], [rs[:1] for rs in replies[::2]])
    np.testing.assert_allclose(
        np.array(model.log_probs(prompts, replies)), np.array(expected), atol=1e-9
    )
    computed = model.usage["computed_tokens"]
    model.log_probs(prompts, replies)
    assert model.usage["computed_tokens"] == computed


def test_the_same_state_twice_and_one_token_replies(lm):
    model = fresh(lm, batch_tokens=1)
    prompt = model.prompt(STATES[0])[1]
    rows = model.log_probs(
        [prompt, prompt, prompt], [[(model.end,)], [(model.end,), (5, model.end)], []]
    )
    assert rows[0][0] == rows[1][0] == pytest.approx(naive(model, prompt, (model.end,)))
    assert rows[1][1] == pytest.approx(naive(model, prompt, (5, model.end))) and rows[2] == []
    assert model.log_probs([], []) == []


def test_a_shared_prompt_is_paid_for_once(lm):
    prompts, replies = candidates(lm)
    model = fresh(lm)
    model.log_probs(prompts, replies)
    full = sum(len(p) + len(r) for p, rs in zip(prompts, replies, strict=True) for r in rs)
    shared = sum(
        len(p) + sum(len(r) - 1 for r in rs) for p, rs in zip(prompts, replies, strict=True)
    )
    assert model.usage["computed_tokens"] == shared < full / 2
    sampler = fresh(lm)
    drawn(sampler, n=5)
    assert sampler.usage["computed_tokens"] < sum(len(p) for p in prompts) + len(prompts) * 5 * 8


# -- loading ----------------------------------------------------------------------------------


def one_line(error) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_save_and_load(lm, tmp_path):
    lm.model.save_pretrained(tmp_path)
    lm.tokenizer.save_pretrained(tmp_path)
    loaded = load_folder(tmp_path, dtype="float64", max_action_tokens=5)
    prompts, replies = candidates(lm)
    assert loaded.log_probs(prompts, replies) == fresh(lm).log_probs(prompts, replies)
    assert loaded.max_action_tokens == 5 and loaded.prompt(STATES[0]) == lm.prompt(STATES[0])


@pytest.mark.parametrize("name", ["none/of/these", "/none/such", "./none", "~/none", "tests/none"])
def test_a_missing_folder_is_told_at_once(name):
    start = time.perf_counter()
    with pytest.raises(QvlibError, match="no such folder") as error:
        load_folder(name)
    assert name in one_line(error) and time.perf_counter() - start < 1


def test_unfit_folders(lm, tmp_path):
    whole, bare, endless, broken = (tmp_path / n for n in ("whole", "bare", "endless", "broken"))
    lm.model.save_pretrained(whole)
    shutil.copytree(whole, bare)
    lm.tokenizer.save_pretrained(whole)
    with pytest.raises(QvlibError, match="no tokenizer could be read") as error:
        load_folder(bare)
    assert "bare" in one_line(error)
    shutil.copytree(whole, broken)
    (broken / "model.safetensors").write_bytes(b"{")
    with pytest.raises(QvlibError, match="no causal language model") as error:
        load_folder(broken)
    one_line(error)
    shutil.copytree(whole, endless)
    tokenizer = load_folder(whole).tokenizer
    tokenizer.eos_token = None
    tokenizer.save_pretrained(endless)
    with pytest.raises(QvlibError, match="no end-of-sequence token") as error:
        load_folder(endless)
    one_line(error)
    (tmp_path / "empty").mkdir()
    with pytest.raises(QvlibError, match="no tokenizer") as error:
        load_folder(tmp_path / "empty")
    one_line(error)
