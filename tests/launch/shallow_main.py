"""`magnifier_jax.main` with a network that compiles quickly, for runs that tests start."""

from magnifier_jax.main import cli
from tests.shallow_network import shallow_resnet18

if __name__ == "__main__":
  with shallow_resnet18():
    cli()
