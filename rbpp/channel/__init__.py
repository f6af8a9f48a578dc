"""Information of a language model's log-probabilities: exact, without mixture or embedding."""
