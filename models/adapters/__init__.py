"""LoRA adapters: ours over the stacked decoder, and PEFT's layout."""
