"""The shrunken Gemma 4 of the tests, every feature of the real one in few weights; and what programs multiply."""

import re

SLIDING, GLOBAL = "sliding_attention", "full_attention"
TINY = {
    "vocab_size": 64,
    "vocab_size_per_layer_input": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "layer_types": [SLIDING, SLIDING, GLOBAL, GLOBAL],
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "global_head_dim": 16,
    "num_global_key_value_heads": 1,
    "attention_k_eq_v": True,
    "hidden_size_per_layer_input": 0,
    "sliding_window": 8,
    "final_logit_softcapping": 30.0,
}


def operand_types(program: str) -> list[tuple[str, str, str]]:
    """The element types of each product of a lowered program: of its operands, and of what it gives."""
    tensor = r"tensor<(?:\d+x)*(\w+)>"
    return re.findall(rf"dot_general .*: \({tensor}, {tensor}\) -> {tensor}", program)
