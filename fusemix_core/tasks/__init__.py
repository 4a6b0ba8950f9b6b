"""Tasks, the kinds of targets that a predictor has. One small file each."""
