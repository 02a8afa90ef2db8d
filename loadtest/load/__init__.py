"""The load engine: puts load on a target, times and checks every answer."""
