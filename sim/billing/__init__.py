"""Money and energy: tariffs, ledger, attribution."""
