"""The conductor: recipe schema, run records, stage runner, report, command line. Each stage is a process of its own."""
