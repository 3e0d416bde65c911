"""Networks that see images: their data, their training, and what masks do to single classes."""
