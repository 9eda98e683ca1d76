"""The notifier: mitigation records in, one notice for each storm out.

`service.main` is the entry point.
"""
