"""The JAX reference: the published MLP-Mixer, with training, timing and comparison."""
