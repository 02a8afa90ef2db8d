"""The publishers' formats of checkpoints: files of arrays, names of arrays, configurations."""
