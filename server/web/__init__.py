"""The HTTP edge: connections, limits, API keys, endpoints, the page."""
