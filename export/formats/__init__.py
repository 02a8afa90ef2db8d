"""How publishers lay out checkpoints: files of arrays, names of arrays, configurations."""
