"""Weights on their way: into a fresh run, and between workdirs and files."""
