"""Networks: `TorchClassifier`, its training loop, recipes, architectures and objectives."""
