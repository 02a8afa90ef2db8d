"""From an encoded image to RGB and to a model's input, with the same pixels for every room."""
