"""The user's files: paths as they are written, locks, and writing whole files or none."""
