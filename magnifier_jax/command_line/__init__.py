"""What every program of the package shares on a command line."""
