"""What exists: hardware, models, prices and requests, as plain typed data."""
