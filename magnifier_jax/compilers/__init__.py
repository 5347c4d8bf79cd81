"""What the compilers of TPUs and GPUs say about our programs, on any machine."""
