"""Embedding, ranking metrics, re-ranking, report."""
