"""The enforcers: make systems match the wanted state."""
