"""The small agent: a Llama of about a million parameters, cloned from demonstrations on the spot.

A real transformers model and tokenizer, saved and loaded as such; nothing else knows it is small.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import AddedToken
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from qvlib.base.seeding import generator
from qvlib.core.types import State
from qvlib.models.precision import in_own_precision
from qvlib.models.prompts import END, READ, SPECIAL, WORDS, as_cloned, compact, plain
from qvlib.models.tokenizers import byte_level_bpe
from qvlib.models.training import (
    Checkpoint,
    batches,
    descend,
    must_be_finite,
    must_compute,
    named,
    padded,
    steps_in_all,
)

ALIASES = tuple(f" #{i}" for i in range(1, 65))
# A price or a number is one piece, a word with the blank before it is one, other signs stand alone.
PIECES = r" ?\$?\d+(?:\.\d+)?| ?[^\W\d_]+|\s|[^\w\s]|_"


@dataclass(frozen=True, slots=True)
class Demonstration:
    """One decision of a demonstrator: the state it saw and what it did."""

    state: State
    action: str


def train_tokenizer(
    demonstrations: Iterable[Demonstration], vocabulary: int, words: int = 0
) -> PreTrainedTokenizerFast:
    """Byte-level BPE on the demonstrations' prompts and replies.

    words: as ``prompts.compact`` takes it; the tokenizer keeps it, and has a mark for what was read
    where a prompt tells it: ``prompts.as_cloned`` goes by both. Segments that stand on many pages
    (buttons, labels) become one token each, as aliases are.
    """
    texts, segments, decisions = [], Counter(), 0
    for d in demonstrations:
        prompt = compact(d.state, words)
        texts.append(prompt.text + prompt.encode(d.action))
        segments.update({plain(s) for s in d.state.observation.split("[SEP]")} - {""})
        decisions += 1
    frequent = [
        s for s, count in sorted(segments.items()) if count > 0.05 * decisions and s.count(" ") > 1
    ]
    marks = [s for s in SPECIAL if s != READ or any(READ in text for text in texts)]
    return byte_level_bpe(
        texts,
        vocabulary,
        end=END,
        whole=[
            *(AddedToken(s, special=True, normalized=False) for s in marks),
            *(AddedToken(s, normalized=False) for s in (*ALIASES, *frequent)),
        ],
        pieces=PIECES,
        min_frequency=2,
        **{WORDS: words},
    )


def config_of(vocabulary: int, width: int, layers: int, heads: int, **tokens: Any) -> LlamaConfig:
    """The configuration of a small Llama; tokens: ids of special tokens."""
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        tie_word_embeddings=True,
        max_position_embeddings=2048,
        **tokens,
    )


def make_model(
    tokenizer: PreTrainedTokenizerFast,
    width: int,
    layers: int,
    heads: int,
    seed: int,
    dtype: str = "float32",
) -> LlamaForCausalLM:
    """A randomly initialised Llama; the weights derive from ``seed`` alone."""
    config = config_of(
        len(tokenizer),
        width,
        layers,
        heads,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(generator(seed, "weights").integers(2**31)))
        return in_own_precision(
            AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
        )


def clone(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    demonstrations: Sequence[Demonstration],
    *,
    epochs: int,
    lr: float,
    batch: int,
    seed: int,
    folder: str | Path | None = None,
) -> Iterator[dict[str, float]]:
    """Behaviour cloning with the next-token loss on prompts and actions, a mean each.

    The prompts' part teaches copying, which the few action tokens alone were too few for. Yields
    the training curve as it goes: step, steps in all, loss of the action tokens in nats a token.
    ``folder`` keeps a checkpoint: a training that was killed goes on from it.

    Raises:
        QvlibError: training diverged, or the checkpoint cannot be read or written.
    """
    rows = _encode(tokenizer, demonstrations)
    total = steps_in_all(len(rows), batch, epochs)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01, fused=True)
    schedule = _one_cycle(optimizer, lr, total)
    settings = {"epochs": epochs, "lr": lr, "batch": batch, "seed": seed}
    path = None if folder is None else named(folder, settings, rows)
    kept = Checkpoint(path, total, model, optimizer, schedule)
    yield from list(kept.curve)
    model.train()
    remedy = f"lower clone_lr (now {lr:g})"
    for step, chosen in enumerate(_batches(rows, epochs, batch, seed)):
        if step < kept.done:
            continue
        ids, actions, attention = padded(
            [rows[i] for i in chosen], tokenizer.pad_token_id, model.device
        )
        logits = model(input_ids=ids, attention_mask=attention).logits[:, :-1]
        nll = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none"
        ).view_as(ids[:, 1:])
        on_action, real = actions[:, 1:], attention[:, 1:].bool()
        action_loss = nll[on_action].mean()
        loss = action_loss + nll[real & ~on_action].mean()
        must_be_finite(loss, f"cloning, step {step} of {total}", remedy)
        descend(model, optimizer, [loss], schedule)
        kept.curve.append({"step": step, "steps": total, "action_loss": action_loss.item()})
        kept.step()
        yield kept.curve[-1]
    model.eval()
    must_compute(model, rows[0][0], "cloning, after its last step", remedy)


def _one_cycle(
    optimizer: torch.optim.Optimizer, lr: float, steps: int
) -> torch.optim.lr_scheduler.OneCycleLR:
    """Up to ``lr`` over a tenth of the steps, then along a cosine to 0.

    torch divides by the tenth less one, which is 0 for ten steps, and the only step of one would
    have the last one's rate.
    """
    share = 0.0999 if steps == 10 else 0.1
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=lr, total_steps=max(2, steps), pct_start=share
    )


def _encode(
    tokenizer: PreTrainedTokenizerFast, demonstrations: Sequence[Demonstration]
) -> list[tuple[list[int], list[bool]]]:
    """(ids of prompt + action + end, which of them are an action's) of each decision.

    Decisions whose prompt starts with the row before, as a transcript's do, go on in that row.
    """
    style = as_cloned(tokenizer)
    prompts = [style(d.state) for d in demonstrations]
    heads = tokenizer([p.text for p in prompts], add_special_tokens=False)["input_ids"]
    tails = tokenizer(
        [p.encode(d.action) for p, d in zip(prompts, demonstrations, strict=True)],
        add_special_tokens=False,
    )["input_ids"]
    rows: list[tuple[list[int], list[bool]]] = []
    for head, tail in zip(heads, tails, strict=True):
        before: tuple[list[int], list[bool]] = ([], [])
        if rows and rows[-1][0] == head[: len(rows[-1][0])]:
            before = rows.pop()
        on_action = before[1] + [False] * (len(head) - len(before[1])) + [True] * (len(tail) + 1)
        rows.append((head + tail + [tokenizer.eos_token_id], on_action))
    return rows


def _batches(
    rows: Sequence[tuple[list[int], list[bool]]], epochs: int, batch: int, seed: int
) -> Iterator[np.ndarray]:
    """Batches of rows of similar length, in random order."""
    lengths = np.array([len(ids) for ids, _ in rows])
    for epoch in range(epochs):
        rng = generator(seed, "cloning", epoch)
        order = np.argsort(lengths + rng.uniform(0, 8, len(rows)), kind="stable")
        cuts = list(batches(order, batch))
        for i in rng.permutation(len(cuts)):
            yield cuts[i]
