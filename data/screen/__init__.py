"""What keeps a row out: near-duplicates, contamination, Verilog that does not compile."""
