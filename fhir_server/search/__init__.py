"""HOW one asks: the condition language, its meaning, and everything that compiles to it."""
