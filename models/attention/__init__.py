"""Attention: exact, blockwise and by kernels, and which one runs."""
