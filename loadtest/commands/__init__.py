"""Command lines: what each flag means, and what is printed."""
