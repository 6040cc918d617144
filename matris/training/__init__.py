"""Training a MatRIS potential: data, loss, trainer, distillation."""
