"""Generators at work: from items, by way of a fused model, to what is made of them."""
