"""What the samples say: statistics, scores, and which artifact to ship."""
