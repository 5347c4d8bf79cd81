"""How well queries are found of which something is hidden."""
