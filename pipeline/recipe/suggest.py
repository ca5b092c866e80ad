"""What a person most likely meant: a key or a value of another tool's name for it, or the nearest in spelling."""

import difflib
import re
from collections.abc import Iterable
from typing import Any, get_args

from pydantic_core import ErrorDetails

from common.schema import Section
from pipeline.recipe.source import Key

Name = tuple[str, ...]
KEYS = {
    "lr": "learning_rate", "learning_rate_init": "learning_rate", "peak_lr": "learning_rate",
    "lr_min": "final_learning_rate", "min_lr": "final_learning_rate", "min_learning_rate": "final_learning_rate",
    "bs": "batch_size", "batch": "batch_size", "micro_batch_size": "batch_size", "train_batch_size": "batch_size",
    "per_device_train_batch_size": "batch_size", "global_batch_size": "batch_size",
    "gradient_accumulation_steps": "accumulate", "grad_accum": "accumulate", "micro_batches": "accumulate",
    "adam_beta1": "b1", "adam_beta2": "b2", "beta1": "b1", "beta2": "b2", "adam_epsilon": "eps", "epsilon": "eps",
    "lr_scheduler_type": "schedule", "lr_scheduler": "schedule", "scheduler": "schedule", "loraplus_lr_ratio": "b_rate",
    "max_steps": "steps", "num_steps": "steps", "total_steps": "steps", "iterations": "steps", "max_iters": "steps",
    "epoch": "epochs", "num_epochs": "epochs", "num_train_epochs": "epochs", "n_epochs": "epochs",
    "warmup": "warmup_steps", "num_warmup_steps": "warmup_steps", "warmup_ratio": "warmup_steps",
    "wd": "weight_decay", "decay": "weight_decay",
    "grad_clip": "clip_norm", "max_grad_norm": "clip_norm", "clip": "clip_norm", "gradient_clip_norm": "clip_norm",
    "gradient_checkpointing": "remat", "activation_checkpointing": "remat", "rematerialize": "remat",
    "save_steps": "checkpoint_every", "save_every": "checkpoint_every", "save_total_limit": "keep_checkpoints",
    "logging_steps": "log_every", "eval_steps": "validate_every", "eval_every": "validate_every",
    "r": "rank", "lora_r": "rank", "lora_rank": "rank", "lora_alpha": "alpha",
    "target_modules": "targets", "lora_target_modules": "targets", "modules": "targets", "lora_targets": "targets",
    "attn_implementation": "attention", "quantization": "weights", "load_in_4bit": "weights", "load_in_8bit": "weights",
    "seq_len": "max_length", "seq_length": "max_length", "max_seq_len": "max_length", "max_seq_length": "max_length",
    "sequence_len": "max_length", "sequence_length": "max_length", "max_model_len": "max_length",
    "context_length": "max_length", "cutoff_len": "max_length", "block_size": "max_length",
    "val_size": "validation", "val_split": "validation", "val_set_size": "validation", "test_size": "validation",
    "datasets": "sources", "dataset": "sources", "files": "sources", "train_file": "sources", "input": "sources",
    "model_name": "path", "model_name_or_path": "path", "model_id": "path", "base_model": "path", "file": "path",
    "torch_dtype": "dtype", "precision": "dtype", "system_prompt": "system",
    "max_new_tokens": "max_tokens", "max_completion_tokens": "max_tokens", "max_gen_toks": "max_tokens",
    "n": "samples", "n_samples": "samples", "num_samples": "samples", "num_return_sequences": "samples",
    "temp": "temperature", "topp": "top_p", "pass_k": "k", "pass_at_k": "k", "threshold": "min",
    "max_num_seqs": "slots", "max_batch_size": "slots", "tensor_parallel_size": "tp", "tensor_parallel": "tp",
    "evaluation": "eval", "training": "train", "serving": "serve", "name_or_path": "path", "gpus": "devices",
    "num_devices": "devices", "passk": "k", "random_seed": "seed", "timeout": "timeout_s", "memory": "memory_mb",
    "shuffle_seed": "seed", "qlora": "weights", "bf16": "dtype", "fp16": "dtype", "workers": "concurrency",
    "num_concurrent": "concurrency", "max_regression": "max_drop", "tolerance": "max_drop",
    "end_lr": "final_learning_rate", "q_proj": "targets", "k_proj": "targets", "v_proj": "targets", "o_proj": "targets",
    "save_interval": "checkpoint_every", "eval_interval": "validate_every", "log_interval": "log_every",
    "serve.batch_size": "slots", "serve.batch": "slots", "serve.concurrency": "slots",
    "hardware.tp": "mesh", "hardware.fsdp": "mesh", "hardware.data": "mesh", "hardware.gpus": "devices",
    "top_k": "", "min_p": "", "dropout": "", "lora_dropout": "", "optimizer": "",
}  # fmt: skip
"""What other tools call a key (of a section, where its name stands before it) -> ours; "": we have none."""
SHORT = {
    "lr": "learning_rate", "wd": "weight_decay", "len": "length", "val": "validation", "valid": "validation",
    "temp": "temperature", "ckpt": "checkpoint", "ckpts": "checkpoints", "iters": "steps",
    "tok": "tokens", "toks": "tokens", "attn": "attention", "quant": "quantize", "seq": "", "num": "", "n": "",
}  # fmt: skip
"""Parts of keys, cut short or said for nothing."""
VALUES = {
    "bf16": "bfloat16", "fp32": "float32", "f32": "float32", "float": "float32",
    "qlora": "lora", "sft": "full", "full_finetune": "full", "scratch": "random", "8bit": "int8", "4bit": "int4",
    "fp4": "int4", "sdpa": "exact", "eager": "exact", "flash": "blockwise", "flash_attention_2": "blockwise",
    "jsonl": "auto", "chat": "messages", "openai": "messages", "chatml": "messages", "raw": "text", "pretrain": "text",
    "true": "on", "yes": "on", "false": "off", "no": "off", "none": "off",
}  # fmt: skip
"""What other tools call a value -> ours."""
_NEAR, _NEAR_ELSEWHERE = 0.6, 0.8


def nearest_key(section: type[Section], key: Key) -> str:
    """A clause to an unknown `key` of `section`: a sibling, a key of another section, or else what is valid there."""
    names = names_of(section, ())
    parent = tuple(part for part in key[:-1] if isinstance(part, str))
    siblings = [name[-1] for name in names if name[:-1] == parent]
    written = str(key[-1])
    plain = written.lower().replace("-", "_")
    known = KEYS.get(f"{parent[0]}.{plain}" if parent else "", KEYS.get(plain))
    if known == "":
        return _valid(siblings)
    here = known if known in siblings else written if written in siblings else _same_words(plain, siblings)
    if not here and known is None:
        here = _near(written, siblings, _NEAR_ELSEWHERE) or _begun(plain, siblings)
    if here:
        return f"; did you mean {'.'.join(map(str, (*key[:-1], here)))}?"
    known = known or _same_words(plain, [name[-1] for name in names])
    elsewhere = [name for word in (written, known) for name in names if name[-1] == word]
    below = [name for name in elsewhere if name[: len(parent)] == parent]
    if found := below or elsewhere:
        return f"; did you mean {'.'.join(found[0])}?"
    if near := _near(written, siblings, _NEAR):
        return f"; did you mean {'.'.join(map(str, (*key[:-1], near)))}?"
    if near := _near(written, [name[-1] for name in names], _NEAR_ELSEWHERE):
        return f"; did you mean {'.'.join(next(name for name in names if name[-1] == near))}?"
    return _valid(siblings)


def _valid(siblings: list[str]) -> str:
    return f"; valid here: {', '.join(siblings)}" if siblings else ""


def _same_words(written: str, names: Iterable[str]) -> str:
    """The name of the same words, whatever their order: final_lr is final_learning_rate."""
    words = set("_".join(SHORT.get(part, part) for part in written.split("_")).split("_")) - {""}
    return next((name for name in names if words and set(name.split("_")) == words), "")


def _begun(written: str, names: Iterable[str]) -> str:
    """The shortest name that begins so."""
    return min((name for name in names if len(written) > 2 and name.startswith(written)), key=len, default="")


def nearest_value(detail: ErrorDetails) -> str:
    """A clause to a value that is none of a list's: the one that another tool's name stands for, or the nearest."""
    written = detail["input"]
    choices = re.findall(r"'([^']*)'", str(detail.get("ctx", {}).get("expected", "")))
    if isinstance(written, bool):
        written = str(written).lower()
    if not isinstance(written, str):
        return ""
    word = written.lower().replace("-", "_").replace(" ", "_")
    known = VALUES.get(word.rsplit(".", 1)[-1], "")
    near = known if known in choices else _near(written, choices, _NEAR_ELSEWHERE)
    return f"; did you mean {near}?" if near else ""


def _near(written: str, words: Iterable[str], cutoff: float) -> str:
    return next(iter(difflib.get_close_matches(written, list(words), n=1, cutoff=cutoff)), "")


def names_of(section: type[Section], prefix: Name) -> list[Name]:
    """Every dotted name of the schema; list indices are left out."""
    names: list[Name] = []
    for name, info in section.model_fields.items():
        names.append((*prefix, name))
        for inner in sections_in(info.annotation):
            names += names_of(inner, (*prefix, name))
    return names


def sections_in(annotation: Any) -> list[type[Section]]:
    """The Section classes inside a field's annotation (optional, tuple of, ...)."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [found for inner in get_args(annotation) for found in sections_in(inner)]
