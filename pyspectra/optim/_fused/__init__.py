"""The machinery of the fused optimizers."""
