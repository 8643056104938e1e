"""A llama model of half a megabyte with random weights, always the same: real servers load it in no time."""

from pathlib import Path

import gguf
import numpy as np

SEED = 20_260
CONTEXT, WIDTH, BLOCKS, HEADS, FEED_FORWARD = 512, 64, 2, 4, 128
SPACE = "\u2581"  # how sentencepiece writes a space
MERGES = ["he", "ll", "hell", "hello", f"{SPACE}hello", "or", "ld", "wor", "world", f"{SPACE}world"]
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def vocabulary() -> tuple[list[str], list[float], list[int]]:
    """Tokens, their scores and their types: specials, every byte, printable ASCII, and some merges."""
    kind = gguf.TokenType
    specials = [("<unk>", kind.UNKNOWN), ("<s>", kind.CONTROL), ("</s>", kind.CONTROL)]
    octets = [(f"<0x{octet:02X}>", kind.BYTE) for octet in range(256)]
    letters = [(letter, kind.NORMAL) for letter in [SPACE, *map(chr, range(0x21, 0x7F))]]
    merges = [(merge, kind.NORMAL) for merge in MERGES]
    entries = specials + octets + letters + merges
    fixed = len(specials) + len(octets)
    scores = [0.0] * fixed + [-float(rank) for rank in range(len(letters) + len(merges))]
    return [text for text, _ in entries], scores, [int(each) for _, each in entries]


def shapes(tokens: int) -> dict[str, tuple[int, ...]]:
    """The tensors and their shapes."""
    square, narrow, wide = (WIDTH, WIDTH), (WIDTH, FEED_FORWARD), (FEED_FORWARD, WIDTH)
    block: dict[str, tuple[int, ...]] = {
        "attn_norm": (WIDTH,),
        "ffn_norm": (WIDTH,),
        "attn_q": square,
        "attn_k": square,
        "attn_v": square,
        "attn_output": square,
        "ffn_gate": wide,
        "ffn_up": wide,
        "ffn_down": narrow,
    }
    whole: dict[str, tuple[int, ...]] = {
        "token_embd": (tokens, WIDTH),
        "output": (tokens, WIDTH),
        "output_norm": (WIDTH,),
    }
    return whole | {f"blk.{i}.{name}": shape for i in range(BLOCKS) for name, shape in block.items()}


def write_tiny_model(path: Path) -> Path:
    tokens, scores, kinds = vocabulary()
    writer = gguf.GGUFWriter(path, "llama")
    _add_architecture(writer)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(kinds)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)
    writer.add_chat_template(CHAT_TEMPLATE)
    weights = np.random.default_rng(SEED)
    for name, shape in shapes(len(tokens)).items():
        scale = 0.02 if len(shape) > 1 else 0.0
        tensor = weights.standard_normal(shape) * scale + (1.0 if len(shape) == 1 else 0.0)
        writer.add_tensor(f"{name}.weight", tensor.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_architecture(writer: gguf.GGUFWriter) -> None:
    writer.add_name("tiny")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(BLOCKS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
