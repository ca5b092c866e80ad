"""The recipe file: read, checked, placed in its lines."""
