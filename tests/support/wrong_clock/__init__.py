"""A wall clock that is wrong: the directory of a sitecustomize for child processes."""
