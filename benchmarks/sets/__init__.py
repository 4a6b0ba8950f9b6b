"""Real sets of up to 324,000 pairs, made from packages: icons and their words, places and their
names, molecules and their names. `python -m benchmarks prepare` writes them; the benchmarks read
what it wrote from the folder in the variable FUSEMIX_SETS.
"""
