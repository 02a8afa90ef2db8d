"""From an encoded image to RGB and to a model's input: one set of pixels for every room."""
