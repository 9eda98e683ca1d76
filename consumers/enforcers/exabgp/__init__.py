"""ExaBGP: blackholes and FlowSpec rules for a BGP neighbor.

`config.run` starts ExaBGP, which starts two processes: the enforcer with
`backend.ExabgpBackend`, and `watchdog.run`.
"""
