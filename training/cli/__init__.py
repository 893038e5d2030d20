"""The commands of `dovit.training`."""
