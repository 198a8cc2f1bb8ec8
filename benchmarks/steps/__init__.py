"""Whole training steps, the same for us and for every peer. Start at workloads.py, which defines them once.

    workload    what a workload is
    workloads   the networks and their losses, written against a small library of layers; unet: the largest of them
    ours        that library on minigen            torch_peer, jax_peer    and on PyTorch and JAX
    worker      one process that runs one workload with one library, and takes orders on standard input
    race        workers side by side, A B A B, and what is made of their times
"""
