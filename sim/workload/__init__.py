"""Where requests come from: rates, arrivals, lengths, traces, clients."""
