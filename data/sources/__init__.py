"""Rows of any source as a stream, here or fetched."""
