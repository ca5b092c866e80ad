"""Everything that is read and checked before a byte is written; `python -m convert.dry_run` stops here."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from common.digests.model import NOTE
from common.errors import UserError
from common.safetensors import INDEX, Weights
from convert.adapters.adapter import METADATA, Adapter, Site, check_pairs, sites
from convert.adapters.peft import read_peft
from convert.config import ConvertConfig, ConvertInputs
from convert.write.carried import carried_files
from convert.write.headers import FLOATS
from convert.write.plan import Plan, make_plan
from convert.write.quantized_plan import export_bytes
from models.adapters.options import CONFIG
from models.families import rows
from models.folder.opened import ModelFolder
from models.leaf import Leaf
from models.quant.layout import Mode
from models.spec import DecoderSpec


@dataclass(frozen=True)
class Work:
    """A conversion, checked and planned."""

    source: Path
    base: Weights
    base_digest: str | None
    spec: DecoderSpec
    table: list[Leaf]
    where: Mapping[str, Site]
    """Every tensor of the base that an adapter could touch."""
    adapter: Adapter
    norms: dict[str, float]
    """Norm of every pair's update."""
    missing: list[str]
    """Tensors of targets that the adapter trains elsewhere."""
    plan: Plan
    carried: list[str]
    left_out: list[str]
    exported: bool
    quantize: Mode | None = None

    @property
    def bytes(self) -> int:
        """Size of the result."""
        files = sum((self.base.folder / name).stat().st_size for name in self.carried)
        pairs = sum(4 * pair.rank * sum(self.base.where[name][1].shape) for name, pair in self.adapter.pairs.items())
        quantized = 0
        if self.quantize is not None:
            tensors = {part.name: part.bytes for file in self.plan.files for part in file.parts}
            quantized = files + export_bytes(self.spec, tensors, self.quantize)
        return files + self.plan.bytes + (pairs if self.exported else 0) + quantized


def prepare(config: ConvertConfig, inputs: ConvertInputs) -> Work:
    source = Path(inputs.adapter)
    model = ModelFolder(Path(inputs.base), inputs.known)
    base, spec = model.headers, model.spec
    table = rows(spec, stacked=True)
    where = sites(spec, [leaf for leaf in table if leaf.use.adaptable])
    with ThreadPoolExecutor(1) as pool:  # the base is hashed while the adapter is read
        hashed = pool.submit(lambda: model.digest) if base.shards else None
        adapter = _read_adapter(source, config, spec, table, where, base)
        digest = hashed.result() if hashed else None
    _same_base(adapter, base, digest)
    norms = check_pairs(adapter, base)
    _check_values(adapter, base)
    _check_types(adapter, base)
    missing = _missing(adapter, where, base)
    _refuse_gaps(adapter, missing, config)
    plan = make_plan(model, adapter, config.max_shard_size)
    own = {shard.path.name for shard in base.shards}
    carried, left_out = carried_files(base.folder, own)
    anew = {INDEX: config.max_shard_size is not None, NOTE: adapter.date is not None}
    carried = [name for name in carried if not anew.get(name)]
    exported = adapter.method == "lora" and config.peft
    return Work(
        source,
        base,
        digest,
        spec,
        table,
        where,
        adapter,
        norms,
        missing,
        plan,
        carried,
        left_out,
        exported,
        config.quantize,
    )


def _read_adapter(
    source: Path,
    config: ConvertConfig,
    spec: DecoderSpec,
    table: list[Leaf],
    where: Mapping[str, Site],
    base: Weights,
) -> Adapter:
    if (source / METADATA).is_file():
        # Orbax and JAX load while the base is hashed.
        from convert.adapters.orbax import read_trained  # noqa: PLC0415

        return read_trained(source, config, spec, table)
    if not (source / CONFIG).is_file():
        what = f"neither {METADATA} nor {CONFIG} is here"
        raise UserError(what, where=str(source), fix="give the folder of a train stage or of a PEFT adapter")
    if config.step is not None or config.checkpoints is not None:
        key = "step" if config.step is not None else "checkpoints"
        raise UserError("a PEFT adapter has no checkpoints", where=f"convert.{key}", fix=f"leave out {key}")
    return read_peft(source, spec, table, where, base)


def _same_base(adapter: Adapter, base: Weights, digest: str | None) -> None:
    """UserError where the adapter was trained on another base."""
    if not base.shards:
        if adapter.method == "lora":
            raise UserError("the base has no weights", where=str(base.folder), fix="give a folder with safetensors")
    elif adapter.base_digest is not None and digest != adapter.base_digest:
        raise UserError(
            "the adapter was trained on another base than this, or the base has changed since",
            where=str(base.folder),
            fix="give the base that it was trained on, or train again",
        )


def _check_values(adapter: Adapter, base: Weights) -> None:
    for name, value in adapter.values.items():
        if name in base.where and base.where[name][1].shape != value.shape:
            shape = list(base.where[name][1].shape)
            what = f"the trained tensor has shape {list(value.shape)}, the base's {shape}"
            raise UserError(what, where=name, fix="give the base that it was trained on")
        if base.shards and name not in base.where:
            raise UserError("the base has no such tensor", where=name, fix="give the base that it was trained on")


def _check_types(adapter: Adapter, base: Weights) -> None:
    for name in sorted({*adapter.pairs, *adapter.values} & set(base.where)):
        dtype = base.where[name][1].dtype
        if dtype not in FLOATS:
            what = f"weights of type {dtype} cannot be changed"
            raise UserError(what, where=name, fix="give the base in BF16, F16 or F32")


def _missing(adapter: Adapter, where: Mapping[str, Site], base: Weights) -> list[str]:
    if adapter.method == "full":
        return []
    targets = {where[name].target for name in adapter.pairs if name in where}
    named = {*adapter.pairs, *adapter.untrained}
    return sorted(n for n, site in where.items() if site.target in targets and n not in named)


def _refuse_gaps(adapter: Adapter, missing: list[str], config: ConvertConfig) -> None:
    """A projection adapted in some layers and not in others: a pattern that missed them, unless it was meant."""
    adapted = {_projection(name) for name in adapter.pairs}
    gaps = [name for name in missing if _projection(name) in adapted]
    if gaps and not (config.partial or adapter.chosen_layers):
        more = f" (and {len(gaps) - 1} more)" if len(gaps) > 1 else ""
        raise UserError(
            "the adapter leaves out a layer of what it adapts elsewhere",
            where=gaps[0] + more,
            fix="correct the pattern it was trained with, or accept it with convert.partial: true",
        )


def _projection(name: str) -> str:
    return name.removesuffix(".weight").rsplit(".", 1)[-1]
