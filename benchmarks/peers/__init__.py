"""Other tools, each as a program that a benchmark runs beside ours, by the Python of its own environment."""
