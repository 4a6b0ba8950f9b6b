"""Tasks: what a predictor predicts. One small file each."""
