"""`tempeval bench`: this engine against lmms-eval's own wrapper, in one process and one call."""
