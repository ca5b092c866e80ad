"""What is learnt from a batch: which positions are supervised, and the cross-entropy summed over them."""

import jax
import jax.numpy as jnp

from models.decoder import Decoder
from models.quant.weight import Quantized
from train.head import LOGITS_BYTES, Form, Table, chunk_of, cross_entropy

Batch = dict[str, jax.Array]


def next_tokens(batch: Batch) -> tuple[jax.Array, jax.Array]:
    """Targets and which of them count [b t]: token t + 1 is the target of t, where it is supervised and of the same
    segment."""
    targets, segments, mask = (jnp.roll(batch[name], -1, axis=1) for name in ("tokens", "segments", "mask"))
    inside = (segments == batch["segments"]) & (jnp.arange(targets.shape[1])[None] < targets.shape[1] - 1)
    return targets, mask & inside


def loss_of(
    decoder: Decoder, hidden: jax.Array, batch: Batch, limit: int = LOGITS_BYTES
) -> tuple[jax.Array, jax.Array]:
    """Sum of cross-entropy over the supervised targets and their number, for hidden [b t d] of `batch`."""
    targets, supervised = next_tokens(batch)
    mesh, spec = decoder.attention.mesh, decoder.spec
    form = Form(mesh, chunk_of(mesh, decoder.attention.platform, spec.vocab, limit), spec.logit_cap)
    total = cross_entropy(form, decoder.normed(hidden), _table(decoder), targets, supervised)
    return total, jnp.sum(supervised, dtype=jnp.float32)


def _table(decoder: Decoder) -> Table:
    table = decoder.table
    if isinstance(table, Quantized):  # int8, with a scale for each token
        return Table(table.codes.astype(table.dtype), table.scale[:, 0])
    return Table(table)
