"""Of the Triton containers: the wheel's and NVIDIA's."""
