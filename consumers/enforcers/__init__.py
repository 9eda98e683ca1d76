"""The enforcers: they make one system each match the wanted state.

Start with `enforcer.Enforcer`, the loop. `backend` is what a new system implements.
"""
