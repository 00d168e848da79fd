"""What the relay costs, measured; see `bench.run`."""
