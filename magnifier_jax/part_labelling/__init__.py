"""Makes part labels for images that have none, by one of several methods."""
