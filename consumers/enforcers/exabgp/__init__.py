"""ExaBGP: blackholes and FlowSpec rules for a BGP neighbor.

`config.run` starts ExaBGP. ExaBGP starts two processes: the enforcer with
`backend.ExabgpBackend`, and `watchdog.run`.
"""
