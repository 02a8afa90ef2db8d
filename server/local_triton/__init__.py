"""A Triton on this machine: installation, command line, process, supervisor, backends."""
