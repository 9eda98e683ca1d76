"""The consumers' part of the demo.

Entry points: `policy_preview.preview` shows the decisions of the demo's policy,
`bgp.show` runs a mitigator, ExaBGP and a BGP neighbor on an embedded broker.
"""
