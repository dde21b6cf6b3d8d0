"""Keys and what they encrypt."""
