"""The webhook: one notice for each storm."""
