"""The JAX reference: the MLP-Mixer as published, trained, timed and compared against."""
