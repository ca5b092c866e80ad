"""Attacks on the grader, and its agreement with the official harness."""
