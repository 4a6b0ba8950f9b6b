"""Measures of predictions, on NumPy arrays: each the field's definition, in float64."""
