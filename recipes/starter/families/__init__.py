"""Families of small designs, each a generator of problems."""
