"""Independent implementations that our own are compared with."""
