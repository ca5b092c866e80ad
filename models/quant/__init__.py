"""Quantized weights: in memory, in files, and from full ones."""
