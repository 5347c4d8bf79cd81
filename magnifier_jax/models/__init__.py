"""The network: Flax NNX modules, one file a branch."""
