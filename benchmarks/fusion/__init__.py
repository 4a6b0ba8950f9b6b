"""`fusemix fuse` on labelled sets, beside its baselines."""
