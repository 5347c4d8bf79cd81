"""What lies in a run's folder: checkpoints, the log of metrics, disk space."""
