"""The network: graph, layers, checkpoints, prediction."""
