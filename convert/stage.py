"""Stage 3: adapter and base to the merged model, the PEFT adapter and the certificate, streaming one tensor at a time.

Nothing is written before every check that needs no base weights has passed; certificate.json is written last. A run
that was cut off goes on at the first missing shard.
"""

import json
import time
from pathlib import Path
from typing import Any

from common.disk import check_room
from common.files import keep_apart, locked, write_json
from common.progress import bar
from common.safetensors import INDEX
from convert.config import VERSION, ConvertConfig, ConvertInputs
from convert.prepare import Work, prepare
from convert.proof.certificate import Ledger, certificate, ledger_of
from convert.proof.outcome import Outcome, why_not
from convert.write.files import Output
from convert.write.merge import Change
from convert.write.peft import copy_peft, write_peft
from convert.write.quantized_plan import FOLDER as QUANTIZED
from convert.write.quantized_plan import Export
from convert.write.resume import CERTIFICATE, Finished
from convert.write.shards import write_files
from models.adapters.options import CONFIG
from models.adapters.peft import TENSORS
from models.text.day import NOTE, note_of

MODEL, ADAPTER = "model", "adapter"
FOLDERS = (MODEL, ADAPTER, QUANTIZED)
LOCK = ".lock"


def run(config: ConvertConfig, inputs: ConvertInputs, out: Path) -> dict[str, Any]:
    """Write model/, adapter/ (LoRA only), quantized/ (on demand) and certificate.json into `out`; returns metrics."""
    keep_apart(out, {"base": inputs.base, "adapter": inputs.adapter, "probes": inputs.probes})
    out.mkdir(parents=True, exist_ok=True)
    with locked(out / LOCK):
        try:
            return _convert(config, inputs, out)
        finally:
            Finished(out, "").close(FOLDERS)
            (out / LOCK).unlink(missing_ok=True)


def _convert(config: ConvertConfig, inputs: ConvertInputs, out: Path) -> dict[str, Any]:
    start = time.monotonic()
    work = prepare(config, inputs)
    unproved = why_not(config, inputs.probes, work)
    streaming = time.monotonic()
    output, changes = _write(config, work, out)
    streamed = time.monotonic() - streaming
    quantized = None
    if config.quantize is not None:
        from convert.write.quantize import export  # noqa: PLC0415 JAX is loaded only for those that need it

        quantized = export(output, out / MODEL, config.quantize)
    outcome = Outcome(unproved)
    if unproved is None and inputs.probes is not None:
        from convert.proof.probe import verify  # noqa: PLC0415

        outcome = verify(work, out / MODEL, Path(inputs.probes), config.max_kl)
    ledger = ledger_of(work, changes)
    proof = certificate(work, ledger, outcome, output.digests)
    if quantized is not None:
        proof["quantized"] = quantized.summary()
    write_json(out / CERTIFICATE, proof)
    return _metrics(work, ledger, output, outcome, quantized, streamed, time.monotonic() - start)


def _write(config: ConvertConfig, work: Work, out: Path) -> tuple[Output, dict[str, Change]]:
    """All files but the certificate; what an earlier attempt at the same conversion finished is kept."""
    identity = [VERSION, work.base_digest, work.adapter.digest, str(work.adapter.weights), config.max_shard_size]
    finished = Finished(out, json.dumps(identity))
    finished.resume(FOLDERS, [f"{MODEL}/{file.name}" for file in work.plan.files], _names(work))
    left = work.bytes - sum(done.size for done in finished.done.values())
    check_room(out, left, "the result", "free space there, or choose another place with --runs DIR")
    output = Output(out)
    output.digests.update({name: done.sha256 for name, done in finished.done.items()})
    with bar("convert", work.plan.tensors, "tensors") as progress:
        write_files(output, MODEL, work.plan, work.adapter, finished, progress)
    if work.plan.index is not None:
        output.write(f"{MODEL}/{INDEX}", work.plan.index)
    for name in work.carried:
        output.copy(work.base.folder / name, f"{MODEL}/{name}")
    if work.exported:
        _export(output, work)
    if work.adapter.date is not None:
        for folder in (MODEL, ADAPTER)[: 1 + work.exported]:
            output.write(f"{folder}/{NOTE}", note_of(work.adapter.date))
    return output, {tensor: change for done in finished.done.values() for tensor, change in done.changes.items()}


def _names(work: Work) -> list[str]:
    """Every file that this conversion may write below `out`'s folders."""
    inner = [file.name for file in work.plan.files] + [*work.carried, INDEX, NOTE]
    own = [f"{folder}/{name}" for folder in (MODEL, QUANTIZED) for name in inner]
    return own + [f"{ADAPTER}/{name}" for name in (CONFIG, TENSORS, NOTE)]


def _export(output: Output, work: Work) -> None:
    if work.adapter.source == "peft":
        copy_peft(output, ADAPTER, work.source, work.adapter)
        return
    write_peft(output, ADAPTER, work.adapter, work.base, str(work.base.folder))


def _metrics(
    work: Work,
    ledger: Ledger,
    output: Output,
    outcome: Outcome,
    quantized: Export | None,
    streamed: float,
    seconds: float,
) -> dict[str, Any]:
    kept = ledger.kept()
    return {
        "method": work.adapter.method,
        "source": work.adapter.source,
        "step": work.adapter.step,
        "tensors": work.plan.tensors,
        "merged": len(ledger.sites) - len(work.adapter.untrained),
        "untrained": len(work.adapter.untrained),
        "missing": len(work.missing),
        "bytes": output.size,
        "seconds": round(seconds, 3),
        "write_seconds": round(streamed, 3),
        "kept_min": min(kept) if kept else None,
        "kept_mean": sum(kept) / len(kept) if kept else None,
        "kl_mean": outcome.kl_mean,
        "kl_max": outcome.kl_max,
        **({} if quantized is None else {f"quantized_{k}": v for k, v in quantized.summary().items()}),
        **{f"sha256 {name}": digest for name, digest in sorted(output.digests.items())},
    }
