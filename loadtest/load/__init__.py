"""The load engine: sends requests to a target, and times and checks every answer."""
