"""Stage 1: raw rows -> conversations -> token ids and loss mask -> ArrayRecord shards."""
