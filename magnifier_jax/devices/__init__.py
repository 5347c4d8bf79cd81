"""The devices and processes of a run: mesh, XLA's options, host memory, preemption."""
