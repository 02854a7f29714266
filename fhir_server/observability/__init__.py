"""What an operator sees of a running server: health, metrics, logs and request ids.  Nothing of it holds data of a patient."""
