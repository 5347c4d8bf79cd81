"""The network's mathematics in the form that XLA's CPU compiler needs."""
