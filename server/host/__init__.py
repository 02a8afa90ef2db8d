"""Facts about the machine and its processes: limits of containers, niceness, crash loops."""
