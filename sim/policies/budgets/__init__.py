"""Policies of budgets: how the spend of a month is forecast, and what is done when it is too high."""
