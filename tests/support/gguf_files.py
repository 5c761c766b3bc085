"""Write GGUF files whose headers say what a test wants; they hold no knowledge."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from gguf import GGUFWriter, LlamaFileType


def write_gguf(
    path: Path,
    *,
    size: int = 64 * 1024,
    layers: int = 4,
    context: int = 2048,
    embedding: int = 64,
    heads: int = 4,
    name: str = "tiny",
    template: str = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}",
    pooling: int | None = None,
) -> Path:
    """Write a GGUF of the llama kind whose tensors take *size* bytes, and give its path."""
    writer = GGUFWriter(str(path), "llama")
    writer.add_name(name)
    writer.add_block_count(layers)
    writer.add_context_length(context)
    writer.add_embedding_length(embedding)
    writer.add_feed_forward_length(embedding * 4)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_file_type(LlamaFileType.MOSTLY_Q4_1)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([b"<s>", b"</s>", *(bytes([97 + index]) for index in range(26))])
    writer.add_token_types([3, 3, *([1] * 26)])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_chat_template(template)
    if pooling is not None:
        writer.add_uint32("llama.pooling_type", pooling)
    pattern = np.arange(size // 4, dtype=np.float32)
    writer.add_tensor("token_embd.weight", pattern)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
