"""What the rooms agree on, once: plain code that imports none of the rooms."""
