"""Using a trained network: embed images, tell two people apart, keep a gallery and search it."""
