"""Where problems come from: a benchmark's files, its checkout, the words a problem is put in, stored completions."""
