"""What processes of the server know of their machine: container limits, niceness, quick deaths."""
