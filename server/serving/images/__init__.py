"""From encoded bytes to pixels, with limits on what a file may cost."""
