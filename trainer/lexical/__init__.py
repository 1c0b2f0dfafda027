"""A linear classifier of hashed tokens and pairs of tokens: what it answers costs next to nothing."""
