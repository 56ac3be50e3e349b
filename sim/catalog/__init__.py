"""The catalog: every number of the outside world, with unit, source, date and confidence."""
