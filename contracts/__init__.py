"""Code that all rooms (the top-level programs) share: plain code that imports none of them."""
