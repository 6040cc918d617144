"""The MatRIS potential: graphs, network, checkpoints and prediction."""
