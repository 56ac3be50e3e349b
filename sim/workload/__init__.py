"""Where requests come from: rates, arrivals, lengths, traces, clients. Importing it registers the workloads that ship."""

from sim.workload import backlog, clients, items, synthetic, trace
from sim.workload.base import Workload
from sim.workload.stream import merge, merge_clients

__all__ = ["Workload", "backlog", "clients", "items", "merge", "merge_clients", "synthetic", "trace"]
