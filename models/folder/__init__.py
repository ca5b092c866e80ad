"""A model folder in Hugging Face layout: what it holds, what becomes of each tensor, and how it becomes a decoder."""
