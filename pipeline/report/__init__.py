"""What a run found, for people and machines: the page, the closing table, JUnit."""
