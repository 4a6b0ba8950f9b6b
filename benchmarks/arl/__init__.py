"""Whether knowledge helps with few pairs: ARL on ChEBI-20."""
