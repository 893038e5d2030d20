"""The command `dovit-calibrate`."""
