"""The prepared copy of a data set: how it is written, found again, read and removed."""
