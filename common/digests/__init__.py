"""Digests: what a stage saved and can check again, and what is known of files so that none is read for it twice."""
