"""The conditions of a measurement: this machine, its versions, and other programs that use it."""
