"""What stages 2 to 4 share: one decoder, one table per family, sharding, tokenizer and prompt."""
