"""The training engine: steps, chunks of steps, and what is between them."""
