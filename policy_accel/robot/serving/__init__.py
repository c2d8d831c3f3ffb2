"""One policy for many robots over the network: the server, its messages, and its clients."""
