"""Tensors of a checkpoint: found, fetched, read and streamed into place."""
