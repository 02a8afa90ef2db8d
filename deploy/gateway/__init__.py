"""Of the gateway's container."""
