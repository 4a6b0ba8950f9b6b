"""Any transformers model as a fusemix encoder: `hf:NAME`. Metadata only."""
