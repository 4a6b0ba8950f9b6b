"""fusemix: frozen unimodal encoders, one multimodal space."""
