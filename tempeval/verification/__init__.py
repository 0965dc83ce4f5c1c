"""Proof that the engine runs a method as its functions say, on tiny models of every family."""
