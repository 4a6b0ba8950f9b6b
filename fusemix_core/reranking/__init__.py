"""Re-ranking: a network that sees both items orders the first results of a search anew."""
