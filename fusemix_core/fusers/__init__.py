"""Ways of predicting from several modalities: one small file each."""
