"""Benchmarks as every room reads them: problems, the folder they lie in, the layouts of files."""
