"""Write whole, tiny models that embed or rank texts: one layer of BERT with random weights, over single letters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from gguf import GGUFWriter, PoolingType

SIZE = 32
CONTEXT = 64
_WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"\u2581{letter}" for letter in "abcdefghijklmnopqrstuvwxyz")]


def write_embedder(path: Path) -> Path:
    """Write a model that embeds, and give its path."""
    return _write(path, PoolingType.MEAN)


def write_ranker(path: Path, *, labels: Sequence[str] = (), template: str | None = None) -> Path:
    """Write a model that ranks, and give its path.

    Args:
        labels: what it tells apart; with none it puts out one number.
        template: how it wants a query and a document put together.
    """
    return _write(path, PoolingType.RANK, labels=labels, template=template)


def _write(path: Path, pooling: PoolingType, *, labels: Sequence[str] = (), template: str | None = None) -> Path:
    random = np.random.default_rng(7)
    writer = GGUFWriter(str(path), "bert")
    writer.add_name("letters")
    writer.add_block_count(1)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(SIZE)
    writer.add_feed_forward_length(SIZE * 2)
    writer.add_head_count(4)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(pooling)
    if labels:
        writer.add_classifier_output_labels(labels)
    if template is not None:
        writer.add_chat_template([{"name": "rerank", "template": template}])
    writer.add_file_type(0)
    writer.add_tokenizer_model("bert")
    writer.add_token_list(_WORDS)
    writer.add_token_types([3, 2, 3, 3, *([1] * (len(_WORDS) - 4))])
    writer.add_token_type_count(2)
    writer.add_pad_token_id(0)
    writer.add_unk_token_id(1)
    writer.add_bos_token_id(2)
    writer.add_sep_token_id(3)
    writer.add_eos_token_id(3)

    def tensor(name: str, *shape: int) -> None:
        writer.add_tensor(name, random.standard_normal(shape, dtype=np.float32) * 0.5)

    tensor("token_embd.weight", len(_WORDS), SIZE)
    tensor("token_types.weight", 2, SIZE)
    tensor("position_embd.weight", CONTEXT, SIZE)
    for name in ("token_embd_norm", "blk.0.attn_output_norm", "blk.0.layer_output_norm"):
        tensor(f"{name}.weight", SIZE)
        tensor(f"{name}.bias", SIZE)
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
        tensor(f"blk.0.{name}.weight", SIZE, SIZE)
        tensor(f"blk.0.{name}.bias", SIZE)
    tensor("blk.0.ffn_up.weight", SIZE * 2, SIZE)
    tensor("blk.0.ffn_up.bias", SIZE * 2)
    tensor("blk.0.ffn_down.weight", SIZE, SIZE * 2)
    tensor("blk.0.ffn_down.bias", SIZE)
    if pooling is PoolingType.RANK:
        tensor("cls.weight", SIZE, SIZE)
        tensor("cls.bias", SIZE)
        tensor("cls.output.weight", max(len(labels), 1), SIZE)
        tensor("cls.output.bias", max(len(labels), 1))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
