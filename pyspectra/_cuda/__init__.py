"""Spectral kernels on a CUDA device: tensors that are there in, host arrays out.

Memory comes from torch, kernels run on its current stream, and the only wait is for the results.
"""
