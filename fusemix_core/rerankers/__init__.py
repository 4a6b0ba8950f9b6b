"""Networks that re-rank. One file for each."""
