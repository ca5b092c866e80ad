"""TPU chips and slices by name: what a program compiled for them is measured against."""

from dataclasses import dataclass

from common.errors import UserError


@dataclass(frozen=True)
class Chip:
    """Memory in GiB, clock in Hz, rates in bytes/s: of its memory as published, between chips as `estimate` uses it."""

    memory: float
    clock: float
    memory_rate: float
    link_rate: float
    flops: float
    """Of bf16 products, per second, as published."""


CHIPS = {
    "v4": Chip(32, 1.05e9, 1.2e12, 90e9, 275e12),
    "v5e": Chip(16, 1.5e9, 0.82e12, 90e9, 197e12),
    "v5p": Chip(95, 1.75e9, 2.77e12, 180e9, 459e12),
    "v6e": Chip(32, 1.75e9, 1.64e12, 180e9, 918e12),
}
"""180 GB/s between chips is what one published run on v5p-8 was explained with (1.11 s estimated, 1.21 measured)."""
CORES = {"v4": 2, "v5p": 2}
"""In a slice's name, where it counts cores and not chips."""
SLICES = {
    "v5e": {1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8"},
    "v6e": {1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8"},
    "v5p": {4: "2x2x1", 8: "2x2x2", 16: "2x2x4", 32: "2x4x4", 64: "4x4x4"},
    "v4": {4: "2x2x1", 8: "2x2x2", 16: "2x2x4", 32: "2x4x4", 64: "4x4x4"},
}
"""Chips to topology."""


@dataclass(frozen=True)
class Slice:
    """A TPU slice by its accelerator type ("v6e-8": eight chips; "v5p-8": eight cores, so four chips)."""

    name: str

    @property
    def kind(self) -> str:
        return self.name.split("-")[0]

    @property
    def chip(self) -> Chip:
        return CHIPS[self.kind]

    @property
    def chips(self) -> int:
        return int(self.name.split("-")[1]) // CORES.get(self.kind, 1)

    @property
    def topology(self) -> str:
        """As libtpu names it: `v6e:2x4`."""
        return f"{self.kind}:{SLICES[self.kind][self.chips]}"

    @property
    def environment(self) -> dict[str, str]:
        """Of a process that compiles for it where it is not: nobody is asked for its metadata."""
        return {
            "JAX_PLATFORMS": "cpu",
            "TPU_SKIP_MDS_QUERY": "1",
            "TPU_WORKER_HOSTNAMES": "localhost",
            "TPU_ACCELERATOR_TYPE": self.name,
            "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        }


def slice_of(name: str) -> Slice:
    """Raises UserError for a name that is not that of a slice."""
    known = [f"{kind}-{n * CORES.get(kind, 1)}" for kind, sizes in SLICES.items() for n in sizes]
    if name not in known:
        raise UserError(f"no TPU slice {name!r} is known", fix=f"known: {', '.join(known)}")
    return Slice(name)
