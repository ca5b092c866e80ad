"""`tapeout inspect` on a real folder: what it is, and what becomes of every tensor."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner, Result

from pipeline.cli.app import app

CONFIG = {
    "model_type": "qwen3",
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
}
LAYER = {
    "input_layernorm": (16,),
    "post_attention_layernorm": (16,),
    "self_attn.q_proj": (32, 16),
    "self_attn.k_proj": (16, 16),
    "self_attn.v_proj": (16, 16),
    "self_attn.o_proj": (16, 32),
    "self_attn.q_norm": (8,),
    "self_attn.k_norm": (8,),
    "mlp.gate_proj": (24, 16),
    "mlp.up_proj": (24, 16),
    "mlp.down_proj": (16, 24),
}
FILE = "model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shapes = {f"layers.{i}.{name}": shape for i in range(2) for name, shape in LAYER.items()}
    shapes |= {"embed_tokens": (32, 16), "norm": (16,)}
    save_file({f"model.{name}.weight": np.ones(s, np.float32) for name, s in shapes.items()}, tmp_path / FILE)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path


def inspect(*arguments: str | Path, capfd: pytest.CaptureFixture[str]) -> tuple[Result, str, str]:
    """How it ended, what it said, and what the process that it asked said of errors."""
    done = CliRunner().invoke(app, ["inspect", *map(str, arguments)])
    return done, done.stdout, capfd.readouterr().err


def test_a_whole_model(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    done, out, _ = inspect(folder, "--json", capfd=capfd)
    assert done.exit_code == 0
    about = json.loads(out)
    size = sum(tensor.size for tensor in load_file(folder / FILE).values())
    assert about["family"].startswith("qwen3") and about["parameters"] == size
    assert about["memory"]["float32"] == 4 * size and about["memory"]["bfloat16"] == 2 * size
    assert [layers["count"] for layers in about["layers"]] == [2]
    assert about["counts"] == {"used": 24, "carried through": 0, "missing": 0, "unexpected": 0}
    assert {row["path"].split(".")[-1]: row["tensors"] for row in about["rows"]}["gate_up"] == 4


def test_every_fate_is_told(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tensors = load_file(folder / FILE)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    tensors |= {"lm_head.weight": np.ones((32, 16), np.float32), "model.rotor": np.ones(3, np.float32)}
    tensors["model.norm.weight"] = np.ones(15, np.float32)
    save_file(tensors, folder / FILE)
    done, out, _ = inspect(folder, capfd=capfd)
    assert done.exit_code == 0
    coverage = {line.split()[0]: " ".join(line.split()[1:]) for line in out.splitlines() if line.strip()}
    assert coverage["model.layers.1.mlp.up_proj.weight"].startswith("missing, wanted by ")
    assert coverage["model.layers.0.mlp.up_proj.weight"].endswith(".gate_up")
    assert coverage["lm_head.weight"] == "carried through"
    assert coverage["model.rotor"] == "unexpected"
    assert coverage["model.norm.weight"] == "used by final_norm, but its shape is [15], not [16]"
    assert out.splitlines()[-1] == "23 used, 1 carried through, 1 missing, 1 unexpected"


def test_a_damaged_file_and_no_folder(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (folder / FILE).write_bytes((folder / FILE).read_bytes()[:-10])
    done, _, err = inspect(folder, capfd=capfd)
    assert done.exit_code == 2 and "not a whole safetensors file" in err and "Traceback" not in err
    done, _, err = inspect(folder / "nowhere", capfd=capfd)
    assert done.exit_code == 2 and "no config.json here" in err and "Traceback" not in err


def test_names_do_not_steer_the_terminal(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    save_file(load_file(folder / FILE) | {"evil\x1b[2J\n0 missing\u202e": np.ones(1, np.float32)}, folder / FILE)
    done, out, _ = inspect(folder, capfd=capfd)
    assert done.exit_code == 0 and "evil\\x1b[2J\\n0 missing\\u202e" in out
    assert not set(out) & {"\x1b", "\u202e"} and "\n0 missing" not in out
