"""Long measurements of a running gateway that are too long for the tests; see `bench/README.md`."""
