"""What is merged, wherever it came from: our checkpoints, PEFT's files."""
