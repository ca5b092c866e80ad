"""Load on a server, and what it takes: `tapeout bench serve`."""
