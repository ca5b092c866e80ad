"""Stage 3: adapter and base to the merged model, the PEFT adapter and the certificate, streaming one tensor at a time.

Nothing is written before every check that needs no base weights has passed; certificate.json is written last.
"""

import math
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import PARTIAL, write_json
from common.progress import Bar, bar
from convert import certificate as certificates
from convert.adapter import Adapter, check_pairs, places
from convert.certificate import Ledger, certificate
from convert.config import ConvertConfig, ConvertInputs
from convert.merge import Change, merge_pair, new_value, replace_value
from convert.output import Output, carried_files, check_space, copy_range
from convert.peft_layout import CONFIG, TENSORS, read_peft, write_peft
from convert.tensors import FLOATS, NAMES, SINGLE, Shard, Weights, make_head, read_weights
from convert.trained import METADATA, read_trained
from models.checkpoint import base_digest
from models.families import read_config, read_spec, rows

MODEL, ADAPTER = "model", "adapter"


def run(config: ConvertConfig, inputs: ConvertInputs, out: Path) -> dict[str, Any]:
    """Write model/, adapter/ (LoRA only) and certificate.json into `out`; returns the metrics."""
    start = time.monotonic()
    source, base_folder = Path(inputs.adapter), Path(inputs.base)
    _clear(out, base_folder, source)
    base = read_weights(base_folder)
    spec = read_spec(inputs.base)
    table = rows(spec, stacked=True)
    where = places(spec, [leaf for leaf in table if leaf.is_product])
    if (source / METADATA).is_file():
        adapter = read_trained(source, config.step, spec, table)
    elif (source / CONFIG).is_file():
        adapter = read_peft(source, where)
    else:
        what = f"neither {METADATA} nor {CONFIG} is here"
        raise UserError(what, where=str(source), fix="give the folder of a train stage or of a PEFT adapter")
    digest = _same_base(adapter, base)
    norms = check_pairs(adapter, base)
    _check_values(adapter, base)

    carried, left_out = carried_files(base.folder, {shard.path.name for shard in base.shards})
    check_space(out, _size(adapter, base, carried))
    output = Output(out)
    ledger = Ledger()
    with bar("convert", _count(adapter, base), "tensors") as progress:
        _write_model(output, adapter, base, norms, ledger, progress)
    for name in carried:
        output.copy(base.folder / name, f"{MODEL}/{name}")
    exported = adapter.method == "lora" and config.peft
    if exported:
        _export(output, adapter, base, source)
    proof = certificate(adapter, ledger, where, exported, digest, output.digests, left_out)
    write_json(out / certificates.NAME, proof)
    return _metrics(adapter, ledger, output, _count(adapter, base), len(proof["missing"]), time.monotonic() - start)


def _clear(out: Path, base: Path, adapter: Path) -> None:
    for folder in (base, adapter):
        for name in (MODEL, ADAPTER):
            if (out / name).resolve() == folder.resolve():
                raise UserError("the output would overwrite an input", where=str(out / name), fix="name another folder")
    for name in (MODEL, ADAPTER):
        shutil.rmtree(out / name, ignore_errors=True)
    for name in (certificates.NAME, certificates.NAME + PARTIAL):
        (out / name).unlink(missing_ok=True)


def _same_base(adapter: Adapter, base: Weights) -> str | None:
    """The base's digest; UserError where the adapter was trained on another one. None: a base without weights."""
    if not base.shards:
        if adapter.method == "lora":
            raise UserError("the base has no weights", where=str(base.folder), fix="give a folder with safetensors")
        return None
    digest = base_digest(str(base.folder))
    if adapter.base_digest is not None and digest != adapter.base_digest:
        raise UserError(
            "the adapter was trained on another base than this, or the base has changed since",
            where=str(base.folder),
            fix="give the base that it was trained on, or train again",
        )
    return digest


def _check_values(adapter: Adapter, base: Weights) -> None:
    for name, value in adapter.values.items():
        if name in base.where and base.where[name][1].shape != value.shape:
            shape = list(base.where[name][1].shape)
            what = f"the trained tensor has shape {list(value.shape)}, the base's {shape}"
            raise UserError(what, where=name, fix="give the base that it was trained on")
        if base.shards and name not in base.where:
            raise UserError("the base has no such tensor", where=name, fix="give the base that it was trained on")


def _own_dtype(folder: Path) -> str:
    """The safetensors name of the type that config.json promises, for a base without weights."""
    about = read_config(str(folder))
    text = about.get("text_config") or {}
    named = about.get("dtype") or about.get("torch_dtype") or text.get("dtype") or text.get("torch_dtype") or "float32"
    matches = [name for dtype, name in NAMES.items() if dtype.name == named]
    if not matches:
        raise UserError(f"unknown type {named!r}", where="config.json: dtype", fix="write float32 or bfloat16")
    return matches[0]


def _count(adapter: Adapter, base: Weights) -> int:
    return len(base.where) or len(adapter.values)


def _size(adapter: Adapter, base: Weights, carried: list[str]) -> int:
    files = sum((base.folder / name).stat().st_size for name in carried)
    pairs = sum(4 * pair.rank * sum(base.where[pair.name][1].shape) for pair in adapter.pairs.values())
    return files + pairs + (sum(shard.bytes for shard in base.shards) or _head_and_bytes(adapter, base)[1])


def _head_and_bytes(adapter: Adapter, base: Weights) -> tuple[bytes, int]:
    dtype = _own_dtype(base.folder)
    head = make_head((value.name, dtype, value.shape) for value in adapter.values.values())
    items = sum(math.prod(value.shape) for value in adapter.values.values())
    return head, len(head) + items * FLOATS[dtype].itemsize


def _write_model(
    output: Output, adapter: Adapter, base: Weights, norms: dict[str, float], ledger: Ledger, progress: Bar
) -> None:
    for shard in base.shards:
        _write_shard(output, shard, adapter, norms, ledger, progress)
    if not base.shards:
        dtype = _own_dtype(base.folder)
        with output.new(f"{MODEL}/{SINGLE}") as sink:
            sink.write(_head_and_bytes(adapter, base)[0])
            for value in adapter.values.values():
                sink.write(new_value(value, dtype))
                ledger.enter(value.name, value.place, None, None)
                progress.advance()


def _write_shard(
    output: Output, shard: Shard, adapter: Adapter, norms: dict[str, float], ledger: Ledger, progress: Bar
) -> None:
    """The base's shard again, byte for byte but for the adapted tensors: same header, same order, same types."""
    with open(shard.path, "rb") as f, output.new(f"{MODEL}/{shard.path.name}") as sink:
        sink.write(shard.head)
        for entry in shard.entries:
            change = Change()
            changed: Iterator[memoryview] = iter(())
            if entry.name in adapter.pairs:
                pair = adapter.pairs[entry.name]
                changed = merge_pair(f, entry, pair, change)
            elif entry.name in adapter.values:
                changed = replace_value(f, entry, adapter.values[entry.name], change)
            else:
                copy_range(f.fileno(), sink, entry.begin, entry.end)
            for block in changed:
                sink.write(block)
            if touched := adapter.pairs.get(entry.name) or adapter.values.get(entry.name):
                norm = norms.get(entry.name, change.delta_delta**0.5)
                ledger.enter(entry.name, touched.place, norm, change)
            progress.advance()


def _export(output: Output, adapter: Adapter, base: Weights, source: Path) -> None:
    if adapter.source == "peft":
        for name in (CONFIG, TENSORS):
            output.copy(source / name, f"{ADAPTER}/{name}")
        return
    write_peft(output, ADAPTER, adapter, base, str(base.folder))


def _metrics(
    adapter: Adapter, ledger: Ledger, output: Output, tensors: int, missing: int, seconds: float
) -> dict[str, Any]:
    kept = ledger.kept()
    return {
        "method": adapter.method,
        "source": adapter.source,
        "step": adapter.step,
        "tensors": tensors,
        "merged": len(ledger.places),
        "missing": missing,
        "bytes": output.bytes,
        "seconds": round(seconds, 3),
        "kept_min": min(kept) if kept else None,
        "kept_mean": sum(kept) / len(kept) if kept else None,
        **{f"sha256 {name}": digest for name, digest in sorted(output.digests.items())},
    }
