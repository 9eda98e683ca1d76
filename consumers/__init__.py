"""Sample consumers: programs to run, read and copy."""
