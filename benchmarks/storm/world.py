"""The small world of a storm: a model of random weights, rows, a recipe, the commands of two ways, and results."""

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

ASSETS = Path(__file__).parents[2] / "recipes" / "assets"
ROWS = 60
RECIPE = """\
name: storm
model:
  path: model
data:
  sources:
    - path: rows.jsonl
  max_length: 96
  validation: 0.1
train:
  lora:
    rank: 2
  batch_size: 2
  steps: 10
  warmup_steps: 1
  checkpoint_every: 2
  validate_every: 4
  log_every: 1
convert:
  max_shard_size: 100KB
"""
NAMES_ITS_BASE = "adapter_config.json"
"""Where the base lies is said there."""
FLAGS = {
    "data": ["--model", "model", "--input", "rows.jsonl", "--set", "max_length=96", "--set", "validation=0.1"],
    "train": [
        *("--model", "model", "--data", "out/data", "--set", "lora.rank=2", "--set", "batch_size=2"),
        *("--set", "steps=10", "--set", "warmup_steps=1", "--set", "checkpoint_every=2"),
        *("--set", "validate_every=4", "--set", "log_every=1"),
    ],
    "convert": [
        *("--base", "model", "--adapter", "out/train", "--probes", "out/data", "--set", "max_shard_size=100KB"),
    ],
}
SETTINGS: dict[str, tuple[str, ...]] = {
    "the same": (),
    "learning rate": ("train.learning_rate=0.003",),
    "seed": ("train.seed=1",),
    "more steps": ("train.steps=12",),
    "rank": ("train.lora.rank=3",),
    "log_every": ("train.log_every=3",),
    "checkpoints": ("train.checkpoint_every=3", "train.keep_checkpoints=1"),
    "rows": ("data.max_length=128",),
    "shards": ("convert.max_shard_size=1MB",),
    "a note beside the model": (),
}


def build(folder: Path) -> None:
    """A Llama of two layers under the starter's tokenizer, rows and a recipe."""
    model = folder / "model"
    model.mkdir(parents=True)
    for file in (ASSETS / "tiny-gemma4").iterdir():
        if file.name.startswith(("token", "chat", "special")):
            shutil.copy(file, model)
    vocab, width, inner, heads, layers = 2048, 32, 48, 2, 2
    sizes = {"vocab_size": vocab, "hidden_size": width, "intermediate_size": inner, "num_hidden_layers": layers}
    more = {"num_attention_heads": heads, "num_key_value_heads": heads, "head_dim": width // heads}
    about = {"model_type": "llama", "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": True}
    config = {**about, **sizes, **more, "architectures": ["LlamaForCausalLM"], "max_position_embeddings": 256}
    (model / "config.json").write_text(json.dumps(config))
    draw = np.random.default_rng(0)
    shapes = {"model.embed_tokens": (vocab, width)}
    for i in range(layers):
        at = f"model.layers.{i}."
        shapes |= {f"{at}self_attn.{each}_proj": (width, width) for each in "qkvo"}
        shapes |= {f"{at}mlp.{each}_proj": (inner, width) for each in ("gate", "up")}
        shapes |= {f"{at}mlp.down_proj": (width, inner)}
    weights = {f"{k}.weight": draw.standard_normal(v).astype(np.float32) / v[-1] ** 0.5 for k, v in shapes.items()}
    norms = [
        f"model.layers.{i}.{each}" for i in range(layers) for each in ("input_layernorm", "post_attention_layernorm")
    ]
    weights |= {f"{name}.weight": np.ones(width, np.float32) for name in [*norms, "model.norm"]}
    save_file(weights, str(model / "model.safetensors"), metadata={"format": "pt"})
    rows = [
        {"prompt": f"Write gate {i}.", "completion": f"module g{i}(input a, output y); assign y = ~a; endmodule"}
        for i in range(ROWS)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "storm.yaml").write_text(RECIPE)


def commands(way: str, setting: str) -> list[list[str]]:
    """What is typed, one after the other, until one of them fails."""
    sets = SETTINGS[setting]
    if way == "recipe":
        return [["run", "storm.yaml", "--to", "convert", *(word for each in sets for word in ("--set", each))]]
    found = []
    for stage, flags in FLAGS.items():
        own = [word for each in sets if each.startswith(f"{stage}.") for word in ("--set", each)]
        found.append([stage, *flags, *own, "--out", f"out/{stage}"])
    return found


def root_of(way: str, folder: Path) -> Path:
    return folder / ("runs" if way == "recipe" else "out")


def places(way: str, folder: Path) -> dict[str, Path]:
    """Each stage's result of the command that ended last."""
    if way == "flags":
        return {stage: folder / "out" / stage for stage in FLAGS}
    root = folder / "runs" / "storm"
    steps = json.loads((root / "current.json").read_text())["steps"]
    return {stage: root / stage / steps[stage] for stage in FLAGS}


def results(way: str, folder: Path) -> dict[str, str]:
    """Digests of all that must not depend on what happened on the way."""
    at = places(way, folder)
    files = [*(at["data"] / "train").iterdir(), *(at["data"] / "validation").iterdir(), at["data"] / "dataset.json"]
    files += [path for name in ("model", "adapter") for path in (at["convert"] / name).iterdir()]
    found = {
        "/".join(path.parts[-2:]): _digest(path) for path in files if path.name not in (NAMES_ITS_BASE, ".DS_Store")
    }
    certificate = json.loads((at["convert"] / "certificate.json").read_text())
    certificate["files"].pop(f"adapter/{NAMES_ITS_BASE}")
    certificate.pop("left_out")  # a note, that came later than the result
    found["certificate"] = _said(certificate)
    config = json.loads((at["convert"] / "adapter" / NAMES_ITS_BASE).read_text())
    found[NAMES_ITS_BASE] = _said(config | {"base_model_name_or_path": None})
    about = json.loads((at["train"] / "adapter.json").read_text())
    found["adapter.json"] = _said(about)
    for stage in FLAGS:
        record = json.loads((at[stage] / "record.json").read_text())
        keep = {
            k: v for k, v in record["metrics"].items() if "second" not in k and k != "bytes" and NAMES_ITS_BASE not in k
        }
        # From flags, what was trained is known by the bytes of its checkpoints, which are never the same twice.
        found[f"{stage} record"] = _said([record["fingerprint"] if stage != "convert" else None, keep])
    return found


@dataclass(frozen=True)
class Work:
    """Something finished: a result with its record, or a checkpoint with its digests."""

    place: Path
    content: str


def finished(root: Path) -> list[Work]:
    found = []
    for mark in [*root.rglob("record.json"), *root.rglob("checkpoints/*/digests.json")]:
        if mark.is_file() and not mark.parent.name.endswith(".partial"):
            found.append(Work(mark.parent, content(mark.parent)))
    return found


def content(folder: Path) -> str:
    """Names and bytes of all that is below."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            total.update(f"{path.relative_to(folder)}\0{_digest(path)}\0".encode())
    return total.hexdigest()


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _said(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
