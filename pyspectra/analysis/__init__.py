"""Models to values: analyse every layer, compare two models."""
