"""Training runs with a fault in them, and healthy ones: what the doctor says of each."""
