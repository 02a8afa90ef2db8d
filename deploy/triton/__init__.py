"""Programs for the two Triton containers: the wheel's and NVIDIA's."""
