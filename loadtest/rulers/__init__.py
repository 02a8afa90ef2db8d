"""Independent programs that measure the same server, so that ours can be held against them."""
