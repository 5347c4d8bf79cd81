"""Numbers of an evaluation: embedding, distances, ranking, re-ranking."""
