"""Tokenizers made here, and what is asked of any: the tokens of a text where it stands.

Made are a byte-level BPE learnt from texts, and one token a word for measurements.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast


def byte_level_bpe(
    texts: Iterable[str],
    vocabulary: int,
    *,
    end: str,
    special: Sequence[str] = (),
    whole: Sequence[AddedToken] = (),
    pieces: str = "",
    min_frequency: int = 0,
    **options: Any,
) -> PreTrainedTokenizerFast:
    """A byte-level BPE of at most ``vocabulary`` tokens, learnt from texts; it can write any text.

    Args:
        end: the token that ends a reply, and pads, on the left.
        special: the first tokens, which no text is cut into.
        whole: tokens that are never cut, kept apart from what is learnt.
        pieces: a regular expression of what no token reaches beyond; empty = GPT-2's.
        min_frequency: how often two tokens must follow each other to be merged.
        options: of transformers' tokenizer.
    """
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not pieces)
    if pieces:
        split = pre_tokenizers.Split(Regex(pieces), behavior="isolated")
        as_bytes = pre_tokenizers.Sequence([split, as_bytes])
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = as_bytes
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens(list(whole))
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(whole),
        min_frequency=min_frequency,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=end,
        pad_token=end,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        **options,
    )


def continued(tokenizer: Any, before: str, text: str) -> list[int]:
    """The token ids of a text where it stands, after another: those of both less the first's.

    Alone it may have others: SentencePiece begins every text with a blank. Where the two share a
    token, the text has those that it has alone.
    """
    if before:
        head, whole = tokenizer([before, before + text], add_special_tokens=False)["input_ids"]
        if whole[: len(head)] == head:
            return whole[len(head) :]
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def begins_with_bos(tokenizer: Any) -> bool:
    """Whether a tokenizer begins every text with its BOS."""
    return tokenizer.bos_token_id is not None and (
        tokenizer("x")["input_ids"][:1] == [tokenizer.bos_token_id]
    )


def one_token_a_word(vocabulary: int) -> PreTrainedTokenizerFast:
    """``w0``, ``w1``, ... with these ids, for random token ids.

    ``w0`` ends and pads, ``w1`` is unknown.
    """
    words = {f"w{i}": i for i in range(vocabulary)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="w1")),
        eos_token="w0",
        pad_token="w0",
    )
