"""Conversion from and to PyTorch checkpoints."""
