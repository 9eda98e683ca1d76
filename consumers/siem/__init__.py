"""Records as lines for a SIEM: ECS for Elastic and OpenSearch, CEF for the others.

`summarize` takes the common fields of both formats from a record.
"""
