"""Independent programs that measure the same server, to check our own load engine against them."""
