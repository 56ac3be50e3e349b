"""Speed, measured as medians and ratios within one run; never asserted in a test."""
