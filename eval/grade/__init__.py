"""From a completion to a verdict: extraction, admission, the harness, simulation, the workers."""
