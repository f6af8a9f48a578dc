"""Generation processes, one file each, as readable Pyro models: copy one to define your own."""
