"""The artifact's files: planned, merged, quantized, streamed."""
