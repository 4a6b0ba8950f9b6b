"""Whether a cheap look and a listen at a long clip find the frames that say what it is about."""
