"""Several runs beside each other and beside the published table."""
