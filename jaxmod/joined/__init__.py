"""Two sub-networks with a few links in between: their training, and how specialized they become."""
