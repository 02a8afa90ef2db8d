"""Long measurements, each a program: `python -m loadtest bench NAME`; see README.md."""
