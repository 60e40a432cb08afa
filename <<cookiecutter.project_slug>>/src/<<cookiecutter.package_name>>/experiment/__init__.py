"""Level 0: the steps by hand, and what every level shares: tables, settings, tracking, registry."""
