"""The user's files: paths as they are written, and writing whole files or none."""
