"""`python -m convert.dry_run JOB.json`: every check of the stage and the sizes of its result; nothing is written.

Prints the text of it, as JSON.
"""

import math
import sys
from pathlib import Path
from typing import Any

from common.answer import answer
from common.disk import free_bytes
from common.stage import read_parts
from convert.config import ConvertConfig, ConvertInputs
from convert.prepare import Work, prepare
from convert.proof.outcome import why_not
from convert.write.shards import crew

INTERPRETER = 450 << 20
"""Resident bytes of the process with its libraries, before it reads anything (measured: 400 MiB)."""


def lines(config: ConvertConfig, inputs: ConvertInputs, out: Path, work: Work) -> list[str]:
    """What the stage would do, for a person."""
    adapter = work.adapter
    steps = "" if adapter.step is None else f", step {adapter.step}"
    if adapter.weights is not None:
        steps = ", " + " + ".join(f"{weight:g} x step {step}" for step, weight in adapter.weights.items())
    rank = "" if adapter.rank is None else f", rank {adapter.rank}"
    unproved = why_not(config, inputs.probes, work)
    free = free_bytes(out)
    touched = len(adapter.pairs) + len(adapter.values)
    return [
        f"adapter      {adapter.method} from {adapter.source}{steps}{rank}: {touched} tensors",
        *(f"shard        {file.name}: {_mb(file.bytes)}, {len(file.parts)} tensors" for file in work.plan.files),
        f"carried      {len(work.carried)} other files; left out: {', '.join(work.left_out) or 'none'}",
        f"PEFT adapter {'written' if work.exported else 'not written'}",
        *([] if config.quantize is None else [f"quantized    {config.quantize}, beside the merged model"]),
        f"verified     {'by running both models' if unproved is None else f'no: {unproved}'}",
        f"peak memory  about {_mb(memory(work, unproved is None))}",
        f"disk         {_mb(work.bytes)} needed, {_mb(free)} free{'' if free >= work.bytes else ': NOT ENOUGH'}",
    ]


def memory(work: Work, verified: bool) -> int:
    """Estimated peak in bytes: interpreter, adapter, pieces in flight; or the models that are run, if more."""
    adapter = sum(4 * pair.rank * sum(work.base.where[name][1].shape) for name, pair in work.adapter.pairs.items())
    adapter += sum(4 * math.prod(value.shape) for value in work.adapter.values.values())
    models = 3 * sum(4 * math.prod(leaf.shape) for leaf in work.table) if verified else 0
    return INTERPRETER + adapter + max(crew(len(work.plan.files)).memory, models)


def _mb(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"


def preview(job: dict[str, Any]) -> str:
    """What is printed. Raises UserError as the stage does."""
    config, inputs, out = read_parts(job, ConvertConfig, ConvertInputs)
    return "\n".join(lines(config, inputs, out, prepare(config, inputs)))


if __name__ == "__main__":
    sys.exit(answer(preview))
