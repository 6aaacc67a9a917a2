"""A causal language model on this machine: it samples n replies and scores candidates.

Both pay for a prompt once: its key-value cache is repeated for the samples or the candidates.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from os.path import commonprefix
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cachetools import LRUCache
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from qvlib.base.seeding import generator
from qvlib.core.types import Cost, Proposal, Request, State
from qvlib.models import branching, chat
from qvlib.models.growing import in_place, with_room
from qvlib.models.nucleus import Ids, Nucleus, Sample, nuclei_on_device, nucleus_of
from qvlib.models.prefixes import Prefixes, joinable, joined, stacked, taken
from qvlib.models.prompts import Prompt, compact
from qvlib.models.replies import parse, unparsable
from qvlib.models.saving import saving
from qvlib.models.templates import ending
from qvlib.models.thoughts import action_tokens
from qvlib.models.tokenizers import continued

CALL = 64  # tokens that take about as long as starting a forward pass
# On a CPU it is fewer from so many parameters on (135 million: 60 ms against 2.4 ms a token).
LARGE, LARGE_CALL = 50_000_000, 24
# Passes of a batch: prompts and then token by token, prompts and then all replies.
PASSES = {"sample": 8, "score": 2}
# Bytes of keys and values, and of logits, of a batch on the CPU; on a GPU an eighth of the memory
# that this process may take of it for either.
CACHES = 2**29
PROMPTS = 1024  # prompts that are remembered: those of the states under way


@dataclass
class LocalModel:
    """A model with its tokenizer and prompt style. ``usage`` counts tokens computed and remembered.

    The same prompt gives the same distribution, so distributions and log-probabilities are
    remembered (``memory`` of each at most): search and episodes meet the same states often.
    cache_tokens: tokens of prompts whose keys and values are kept for prompts that start with them;
    worth their memory where a prompt grows at its end, as in a chat.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    style: Callable[[State], Prompt] = compact
    max_action_tokens: int = 24
    batch_tokens: int = 8192
    memory: int = 100_000
    cache_tokens: int = 0
    usage: Counter = field(default_factory=Counter)
    _nuclei: OrderedDict = field(default_factory=OrderedDict, init=False, repr=False)
    _scores: OrderedDict = field(default_factory=OrderedDict, init=False, repr=False)
    _prompts: LRUCache = field(default_factory=lambda: LRUCache(PROMPTS), init=False, repr=False)
    _last_prompt: Ids = field(default=(), init=False, repr=False)
    _branches: bool | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self.model.eval()
        self._gap, self.end = (
            ending(self.tokenizer)
            if isinstance(self.style, chat.Chat)
            else ("", int(self.tokenizer.eos_token_id))
        )
        self.ends = frozenset((self.end, *_listed(self.model.generation_config.eos_token_id)))
        self._prefixes = Prefixes(self.cache_tokens)
        config, device = self.model.config.get_text_config(), self.model.device
        heads = getattr(config, "num_attention_heads", None) or 1
        size = getattr(config, "head_dim", None) or config.hidden_size // heads
        heads = getattr(config, "num_key_value_heads", None) or heads
        self._token_bytes = 2 * config.num_hidden_layers * heads * size * self.model.dtype.itemsize
        large, on_cpu = self.model.num_parameters() >= LARGE, device.type == "cpu"
        self._call = LARGE_CALL if large and on_cpu else CALL
        self._joins = large or not on_cpu
        self._most_bytes = CACHES if on_cpu else _memory_of(device) // 8

    @property
    def context(self) -> float:
        """Tokens that the model can read; infinite where it sets no bound."""
        return (
            getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
            or math.inf
        )

    def tuned(self, model: PreTrainedModel) -> LocalModel:
        """The same with other weights, and nothing remembered."""
        return LocalModel(
            model,
            self.tokenizer,
            self.style,
            self.max_action_tokens,
            self.batch_tokens,
            self.memory,
            self.cache_tokens,
        )

    def save(self, folder: str | Path) -> None:
        """Write weights and tokenizer as transformers does, without its bars.

        Raises:
            QvlibError: the folder cannot be written.
        """
        with saving(folder), quiet():
            self.model.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)

    def agent(self, temperature: float, top_p: float) -> LocalAgent:
        """The agent that samples so; 0 is greedy."""
        return LocalAgent(self, temperature, top_p)

    def forget(self) -> None:
        """Empty the memories."""
        for memory in (self._nuclei, self._scores, self._prompts, self._prefixes):
            memory.clear()

    def prompt(self, state: State) -> tuple[Prompt, Ids]:
        """The prompt of a state and its token ids."""
        return self.prompts([state])[0]

    def prompts(self, states: Sequence[State]) -> list[tuple[Prompt, Ids]]:
        """Prompts and token ids of states; the last ``PROMPTS`` are remembered for redraws."""
        # Of the task too: a conversation begins with its first observation, which is in no later
        # state.
        keys = [
            (
                s.task.id,
                s.task.instruction,
                s.observation,
                s.history,
                s.admissible,
                s.descriptions,
            )
            for s in states
        ]
        prompts = {key: self._prompts.get(key) for key in keys}
        new = {
            key: self.style(state)
            for key, state in zip(keys, states, strict=True)
            if prompts[key] is None
        }
        if new:
            ids = self.tokenizer(
                [prompt.text for prompt in new.values()], add_special_tokens=False
            )["input_ids"]
            for (key, prompt), row in zip(new.items(), ids, strict=True):
                prompts[key] = self._prompts[key] = prompt, tuple(row)
        return [prompts[key] for key in keys]

    def action_ids(self, prompt: Prompt, action: str) -> Ids:
        """The token ids of an action as a reply to the prompt, end token included."""
        reply = prompt.encode(action) + self._gap
        return (*continued(self.tokenizer, prompt.tail, reply), self.end)

    # -- sampling ---------------------------------------------------------------------------

    def sample(
        self,
        prompts: Sequence[Ids],
        draws: Sequence[Sequence[Any]],
        temperature: float,
        top_p: float,
    ) -> list[list[tuple[Ids, float]]]:
        """For each prompt, one (reply ids, log-probability in nats) for each of its ``draws``.

        A draw is a callable that gives the next uniform number in [0, 1), or None for greedy.
        """
        rows = self.samples(prompts, draws, temperature, top_p)
        return [[(s.ids, s.log_prob) for s in row] for row in rows]

    def samples(
        self,
        prompts: Sequence[Ids],
        draws: Sequence[Sequence[Any]],
        temperature: float,
        top_p: float,
    ) -> list[list[Sample]]:
        """``sample`` with the log-probability of each token."""
        samples = [Sample(i, k, draw) for i, row in enumerate(draws) for k, draw in enumerate(row)]
        for s in samples:  # what is remembered needs no model
            while not s.finished(self.ends, self.max_action_tokens):
                nucleus = self._nuclei.get((prompts[s.prompt], s.ids, temperature, top_p))
                if nucleus is None:
                    break
                s.step(nucleus)
        chunks = self._chunks(
            [s for s in samples if not s.finished(self.ends, self.max_action_tokens)], prompts
        )
        for group in self._together(chunks, prompts):
            self._decode(group, prompts, temperature, top_p)
        rows: list[list[Sample]] = [[] for _ in draws]
        for s in samples:
            rows[s.prompt].append(s)
            # So that a reference need not compute again what its own samples told.
            _put(self._scores, (prompts[s.prompt], s.ids), s.log_prob, self.memory)
        return rows

    def _chunks(self, samples: list[Sample], prompts: Sequence[Ids]) -> list[list[Sample]]:
        """Unfinished samples in batches, those of one prompt together.

        ``at`` is set to where theirs part.
        """
        by_prompt: dict[Ids, list[Sample]] = {}
        for s in samples:
            by_prompt.setdefault(prompts[s.prompt], []).append(s)
        by_start: dict[Ids, list[Sample]] = {}
        for prompt, group in by_prompt.items():
            shared = _shared_start([s.ids for s in group])
            for s in group:
                s.at = len(shared)
            by_start.setdefault(prompt + shared, []).extend(group)
        batches = self._of_similar_length(
            {start: len(group) for start, group in by_start.items()}, PASSES["sample"]
        )
        return [[s for start in batch for s in by_start[start]] for batch in batches]

    def _together(
        self, chunks: Sequence[list[Sample]], prompts: Sequence[Ids]
    ) -> list[list[list[Sample]]]:
        """Chunks whose replies are extended together: as many as ``CACHES`` bytes allow.

        A small model's each by themselves: to put their caches into one takes it longer than its
        further passes.
        """
        if not self._joins:
            return [[chunk] for chunk in chunks]
        groups: list[list[list[Sample]]] = []
        longest = replies = 0
        for chunk in chunks:
            longest, replies = (
                max(longest, *(len(prompts[s.prompt]) + s.at for s in chunk)),
                replies + len(chunk),
            )
            if not groups or replies * longest * self._token_bytes > self._most_bytes:
                groups.append([])
                longest, replies = max(len(prompts[s.prompt]) + s.at for s in chunk), len(chunk)
            groups[-1].append(chunk)
        return groups

    def _of_similar_length(self, starts: Mapping[Ids, int], passes: int) -> list[list[Ids]]:
        """In batches of at most ``batch_tokens``, and of ``CACHES`` bytes of keys and values.

        starts: with their number of replies. Padding dearer than the passes starts a new batch too.
        What counts is the tokens that no kept cache knows. Longest first, so that what memory it
        takes shows at once; shortest first where caches are kept, which serve longer ones.
        """
        new = {start: len(start) - self._prefixes.known(start) for start in starts}
        batches: list[list[Ids]] = []
        tokens = most = longest = replies = 0
        for start in sorted(starts, key=lambda s: (new[s], len(s)), reverse=not self.cache_tokens):
            most, longest, replies = (
                max(most, new[start]),
                max(longest, len(start)),
                replies + starts[start],
            )
            count = len(batches[-1]) + 1 if batches else 1
            padding = most * count - tokens - new[start]
            if (
                not batches
                or count * most > self.batch_tokens
                or padding > passes * self._call
                or replies * longest * self._token_bytes > self._most_bytes
            ):
                batches.append([])
                tokens, most, longest, replies = 0, new[start], len(start), starts[start]
            batches[-1].append(start)
            tokens += new[start]
        return batches

    @torch.inference_mode()
    def _decode(
        self,
        chunks: Sequence[list[Sample]],
        prompts: Sequence[Ids],
        temperature: float,
        top_p: float,
    ) -> None:
        """Prefill each distinct start once, a chunk at a time, then extend.

        All are extended together where their caches can be joined.
        """
        starts = [
            list(dict.fromkeys(prompts[s.prompt] + s.ids[: s.at] for s in chunk))
            for chunk in chunks
        ]
        parts = [self._prefill(some) for some in starts]
        if len(parts) > 1 and all(joinable(cache) for _, cache, _ in parts):
            parts, starts, chunks = [joined(parts)], [list(chain(*starts))], [list(chain(*chunks))]
        for part, some, chunk in zip(parts, starts, chunks, strict=True):
            self._extend(chunk, some, *part, prompts, temperature, top_p)

    def _extend(
        self,
        samples: list[Sample],
        starts: Sequence[Ids],
        logits: torch.Tensor,
        cache: Any,
        mask: torch.Tensor,
        prompts: Sequence[Ids],
        temperature: float,
        top_p: float,
    ) -> None:
        """Extend distinct continuations of ``starts`` together.

        logits, cache, mask: those of ``_prefill``. A sample goes on from ``at``: first along the
        tokens it has from memory, then by drawing.
        """
        rows = {start: i for i, start in enumerate(starts)}
        room = self.max_action_tokens - min(s.at for s in samples)
        live, has_room = samples, False
        while True:
            drawing = [s for s in live if s.at == len(s.ids)]
            nuclei = self._remember(logits[:, -1], rows, drawing, prompts, temperature, top_p)
            for s in drawing:
                s.step(nuclei[s.prompt, s.ids])
            for s in live:
                s.at += 1
            live = [s for s in live if not s.finished(self.ends, self.max_action_tokens)]
            if not live:
                return
            found: dict[Ids, int] = {}
            for s in live:
                full = prompts[s.prompt] + s.ids[: s.at]
                found.setdefault(full, rows[full[:-1]])
            order = list(found)
            keep = {order[i]: found[order[i]] for i in in_place(list(found.values()))}
            if not has_room or list(keep.values()) != list(range(len(mask))):
                parents = torch.tensor(list(keep.values()), device=mask.device)
                if has_room:
                    cache.reorder_cache(parents)
                else:
                    with_room(cache, parents, len(samples), room)
                mask, has_room = mask[parents], True
            mask = torch.cat([mask, mask.new_ones(len(keep), 1)], dim=1)
            last = torch.tensor([[full[-1]] for full in keep], device=mask.device)
            logits = self.model(
                input_ids=last,
                attention_mask=mask,
                position_ids=mask.sum(1, keepdim=True) - 1,
                past_key_values=cache,
                use_cache=True,
            ).logits
            self.usage["computed_tokens"] += len(keep)
            rows = {full: i for i, full in enumerate(keep)}

    def _remember(
        self,
        logits: torch.Tensor,
        rows: dict[Ids, int],
        live: list[Sample],
        prompts: Sequence[Ids],
        temperature: float,
        top_p: float,
    ) -> dict[tuple[int, Ids], Nucleus]:
        """The nuclei of the live samples' positions, remembered ones first."""
        nuclei: dict[tuple[int, Ids], Nucleus] = {}
        new: dict[Ids, list[Sample]] = {}  # by all their tokens: prompts may be alike
        for s in live:
            nucleus = self._nuclei.get((prompts[s.prompt], s.ids, temperature, top_p))
            if nucleus is None:
                new.setdefault(prompts[s.prompt] + s.ids, []).append(s)
            else:
                nuclei[s.prompt, s.ids] = nucleus
        made = self._nuclei_of(logits, [rows[full] for full in new], temperature, top_p)
        for group, nucleus in zip(new.values(), made, strict=True):
            for s in group:
                key = (prompts[s.prompt], s.ids, temperature, top_p)
                if key not in self._nuclei:
                    _put(self._nuclei, key, nucleus, self.memory)
                nuclei[s.prompt, s.ids] = nucleus
        return nuclei

    def _nuclei_of(
        self, logits: torch.Tensor, rows: list[int], temperature: float, top_p: float
    ) -> list[Nucleus]:
        """The nuclei of some rows of logits [B, V]; a GPU sorts its vocabularies itself."""
        if not rows:
            return []
        log_probs = torch.log_softmax(logits.double(), dim=-1)
        if logits.device.type != "cpu":
            return nuclei_on_device(log_probs[rows], temperature, top_p)
        known = log_probs.numpy()
        return [nucleus_of(known[row], temperature, top_p) for row in rows]

    # -- scoring ----------------------------------------------------------------------------

    def log_probs(
        self, prompts: Sequence[Ids], replies: Sequence[Sequence[Ids]]
    ) -> list[list[float]]:
        """Summed log-probability in nats of each reply after its prompt, which is computed once."""
        asked = dict.fromkeys((p, r) for p, rs in zip(prompts, replies, strict=True) for r in rs)
        scores = {row: self._scores[row] for row in asked if row in self._scores}
        for batch in self.batches([row for row in asked if row not in scores]):
            tokens = own_log_probs(self.reply_logits(batch), batch)
            scores |= {row: float(values.sum()) for row, values in zip(batch, tokens, strict=True)}
        for row, value in scores.items():
            _put(self._scores, row, value, self.memory)
        return [[scores[p, r] for r in rs] for p, rs in zip(prompts, replies, strict=True)]

    def batches(self, rows: Iterable[tuple[Ids, Ids]]) -> list[list[tuple[Ids, Ids]]]:
        """(prompt, reply) rows in batches for ``reply_logits``, those of one prompt together.

        Their logits take ``CACHES`` bytes at most: one long reply among many makes a batch as wide
        as itself.
        """
        by_prompt: dict[Ids, list[tuple[Ids, Ids]]] = {}
        for row in rows:
            by_prompt.setdefault(row[0], []).append(row)
        batches = self._of_similar_length(
            {p: len(group) for p, group in by_prompt.items()}, PASSES["score"]
        )
        most = self._most_bytes // (8 * self.model.get_output_embeddings().weight.shape[0])
        narrow: list[list[tuple[Ids, Ids]]] = []
        for batch in batches:
            width = 0
            for i, prompt in enumerate(batch):
                group = by_prompt[prompt]
                width = max(width, *(len(reply) for _, reply in group))
                if i == 0 or (len(narrow[-1]) + len(group)) * width > most:
                    narrow.append([])
                    width = max(len(reply) for _, reply in group)
                narrow[-1] += group
        return narrow

    @torch.inference_mode()
    def reply_logits(self, rows: Sequence[tuple[Ids, Ids]]) -> torch.Tensor:
        """The logits that predict each token of each reply, [rows, longest reply, V], float64.

        rows: (prompt, reply); a prompt that several rows share is computed once. Beyond a reply's
        end is nothing.
        """
        heads = {p: i for i, p in enumerate(dict.fromkeys(p for p, _ in rows))}
        last, cache, mask = self._prefill(list(heads))
        parents = [heads[p] for p, _ in rows]
        logits = [last[parents, -1:]]
        width = max(len(r) for _, r in rows)
        if width > 1 and len(rows) > len(heads) and self._can_branch():
            replies = [r[:-1] for _, r in rows]
            logits.append(branching.reply_logits(self.model, cache, mask, parents, replies))
        elif width > 1:
            mask = mask[parents]
            cache.reorder_cache(torch.tensor(parents, device=mask.device))
            reply = torch.tensor(
                [r[:-1] + (self.end,) * (width - len(r)) for _, r in rows], device=mask.device
            )
            more = torch.arange(width - 1, device=mask.device)
            logits.append(
                self.model(
                    input_ids=reply,
                    attention_mask=torch.cat([mask, torch.ones_like(reply)], dim=1),
                    position_ids=mask.sum(1, keepdim=True) + more,
                    past_key_values=cache,
                    use_cache=True,
                ).logits
            )
        self.usage["computed_tokens"] += sum(len(r) - 1 for _, r in rows)
        return torch.cat(logits, dim=1).double()

    def _can_branch(self) -> bool:
        if self._branches is None:
            self._branches = branching.branches(self.model)
        return self._branches

    def _prefill(self, prompts: Sequence[Ids]) -> tuple[torch.Tensor, Any, torch.Tensor]:
        """(logits of the last token [B, 1, V], cache, mask [B, T]) of prompts.

        What is known of their starts is not computed again.
        """
        if self.cache_tokens:
            shared = _shared_start([*prompts, self._last_prompt or prompts[0]])
            self._last_prompt = prompts[0]
            if (
                CALL < len(shared) < min(map(len, prompts))
                and self._prefixes.known(shared) < len(shared) - 1
            ):
                self._prefill([shared])  # what all conversations begin with
        known = [self._prefixes.longest(p) for p in prompts]
        ids, mask = self._pad([p[n:] for p, (n, _) in zip(prompts, known, strict=True)])
        width, cache = ids.shape[1], None
        if any(n for n, _ in known):
            cache, before = stacked(known, self.model.config, ids)
            mask = torch.cat([before, mask], dim=1)
        out = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=_positions(mask)[:, -width:],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self.usage["prompt_tokens"] += sum(map(len, prompts))
        computed = sum(len(p) - n for p, (n, _) in zip(prompts, known, strict=True))
        self.usage.update(computed_tokens=computed, computed_prompt_tokens=computed)
        if self.cache_tokens:
            for i, (prompt, (n, _)) in enumerate(zip(prompts, known, strict=True)):
                layers = taken(out.past_key_values, i, len(prompt) - n, mask.shape[1])
                if layers:
                    self._prefixes.put(prompt, n, layers)
        return out.logits, out.past_key_values, mask

    def _pad(self, rows: Sequence[Ids]) -> tuple[torch.Tensor, torch.Tensor]:
        """(ids, mask), both [B, T], padded on the left."""
        width = max(map(len, rows))
        ids = torch.full((len(rows), width), self.end)
        mask = torch.zeros((len(rows), width), dtype=torch.long)
        for i, row in enumerate(rows):
            ids[i, width - len(row) :] = torch.tensor(row)
            mask[i, width - len(row) :] = 1
        device = self.model.device
        return ids.to(device), mask.to(device)


def own_log_probs(logits: torch.Tensor, rows: Sequence[tuple[Ids, Ids]]) -> list[np.ndarray]:
    """log softmax(logits)[token] in nats of each reply's own tokens, an array a row.

    logits: those of ``reply_logits``.
    """
    width = logits.shape[1]
    tokens = torch.tensor([r + r[-1:] * (width - len(r)) for _, r in rows], device=logits.device)
    log_probs = torch.log_softmax(logits, dim=-1).gather(2, tokens[..., None])[..., 0].cpu().numpy()
    return [values[: len(r)] for (_, r), values in zip(rows, log_probs, strict=True)]


@dataclass(frozen=True)
class LocalAgent:
    """Samples actions from a local model. temperature 0 is greedy.

    With thoughts, an action's log-probability is that of its tokens given the thought before it.
    """

    lm: LocalModel
    temperature: float = 1.0
    top_p: float = 1.0

    def propose(self, requests: Sequence[Request]) -> list[list[Proposal]]:
        prompts = self.lm.prompts([r.state for r in requests])
        draws = [
            [None if self.temperature == 0 else generator(*r.key, k).random for k in range(r.n)]
            for r in requests
        ]
        replies = self.lm.samples(
            [ids for _, ids in prompts], draws, self.temperature or 1.0, self.top_p
        )
        text = {ids: self._text(ids) for ids in {s.ids for row in replies for s in row}}
        # The prompt is paid for once, by the first sample.
        return [
            [
                Proposal(
                    parse(text[s.ids], r.state)
                    if isinstance(prompt, chat.ChatPrompt)
                    else prompt.decode(text[s.ids]),
                    self._log_prob(prompt, s, text[s.ids]),
                    Cost(
                        tokens=len(s.ids),
                        prompt_tokens=len(prompt_ids) if k == 0 else 0,
                        unparsable=int(
                            isinstance(prompt, chat.ChatPrompt)
                            and unparsable(text[s.ids], r.state, not prompt.thoughts)
                        ),
                    ),
                )
                for k, s in enumerate(row)
            ]
            for r, (prompt, prompt_ids), row in zip(requests, prompts, replies, strict=True)
        ]

    def _text(self, ids: Sequence[int]) -> str:
        """The text of a reply, letter by letter."""
        return self.lm.tokenizer.decode(
            ids[:-1] if ids and ids[-1] == self.lm.end else ids,
            skip_special_tokens=True,
            clean_up_tokenization_spaces=False,
        )

    def _log_prob(self, prompt: Prompt, sample: Sample, text: str) -> float:
        if not (isinstance(prompt, chat.ChatPrompt) and prompt.thoughts):
            return sample.log_prob
        action = prompt.decode(text)
        told = action_tokens(self._text, sample.ids, action, action in prompt.quotes)
        return sum(sample.log_probs[told])


@contextmanager
def quiet() -> Iterator[None]:
    """No bars of transformers for reading and writing weights, which take a blink; no reports."""
    enabled, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if enabled:
            logging.enable_progress_bar()


def _memory_of(device: torch.device) -> int:
    """Bytes of a GPU that this process may take."""
    total = torch.cuda.get_device_properties(device).total_memory
    return int(total * torch.cuda.get_per_process_memory_fraction(device))


def _listed(ids: int | list[int] | None) -> list[int]:
    return [] if ids is None else [ids] if isinstance(ids, int) else list(ids)


def _positions(mask: torch.Tensor) -> torch.Tensor:
    return (mask.cumsum(1) - 1).clamp(min=0)


def _shared_start(rows: Sequence[Ids]) -> Ids:
    return tuple(commonprefix(rows))  # noqa: RUF071 - of tokens, not of paths


def _put(memory: OrderedDict, key: Any, value: Any, most: int) -> None:
    """Remember; what was put in first goes first.

    Not ``cachetools.LRUCache``, nor any order of use: keys hold whole prompts, and to note each use
    hashes them again. Replies to 64 prompts of 300 tokens from memory alone took 49 ms of CPU so,
    62 ms with the order of use, 73 ms with ``LRUCache``; computed ones, with a full memory, 956,
    971 and 1,129 ms. What goes too early is computed again, to the same value but for rounding.
    """
    memory[key] = value
    if len(memory) > most:
        memory.popitem(last=False)
