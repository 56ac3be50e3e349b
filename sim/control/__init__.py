"""The SimPy control plane: the loop, nodes, failures."""
