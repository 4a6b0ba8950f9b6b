"""Kandinsky 2.2's networks and the DDIM sampler in plain torch, for a process that must be fast.

They read the files that diffusers writes, tensor by tensor, and give the same images; importing
diffusers' own classes takes seconds. `supported` says which pipelines they cover.
"""
