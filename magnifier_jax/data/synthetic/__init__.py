"""The drawn pedestrians of the built-in data set."""
