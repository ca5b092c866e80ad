"""Stage 4: a JAX inference engine behind an OpenAI-compatible HTTP server."""
