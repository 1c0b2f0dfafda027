"""A smaller classifier that learns the answers of a trained one."""
