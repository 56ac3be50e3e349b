"""Tables of a run and what is computed from them; needs no engine."""
