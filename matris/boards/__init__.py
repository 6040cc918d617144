"""Public benchmarks of universal potentials, each a command: `matris board NAME`."""
