"""Programs for the gateway's container."""
