"""What a run says of itself and what stops it: the log, figures that are no numbers, signals."""
