"""Predicting from several modalities: what is fitted, compared, chosen and explained."""
