"""What a number depends on: this machine, its versions, and who else uses it."""
