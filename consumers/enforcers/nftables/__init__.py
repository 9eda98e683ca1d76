"""nftables: a firewall that drops the traffic of networks.

Start with `backend.NftablesBackend`; `script` builds the input of the command nft.
"""
