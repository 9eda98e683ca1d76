"""SQL that reads the topics, derived from the schemas; pure.

`statements.py` is the entry point. Each engine has a file.
"""
