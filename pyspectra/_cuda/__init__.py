"""Spectral kernels on a CUDA device: they take tensors on it, and return host arrays.

Memory comes from torch, kernels run on its current stream, and the only wait is for the results.
"""
