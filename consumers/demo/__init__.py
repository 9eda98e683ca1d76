"""The consumers' part of the demo.

Entry points: `policy_preview.preview` shows what the demo's policy would decide,
`bgp.show` runs a mitigator, ExaBGP and a BGP neighbor on an embedded broker.
"""
