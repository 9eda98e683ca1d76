"""nftables: a firewall that drops the traffic of networks.

Start with `backend.NftablesBackend`; `script` has the text for the command nft.
"""
