"""Pure functions of hardware and model: step time, memory, power."""
