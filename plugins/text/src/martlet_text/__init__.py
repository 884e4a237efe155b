"""Templates and loss scales: from conversations to tokens, with a proven loss mask."""
