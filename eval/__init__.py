"""Stage 5: benchmark -> completions over HTTP -> simulation -> pass@k -> gate. Needs no JAX."""
