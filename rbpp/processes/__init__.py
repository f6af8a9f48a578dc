"""Generation processes: loaded, checked against the contract, simulated in batches."""
