"""Stage 2: shards -> Orbax checkpoints (LoRA or full)."""
