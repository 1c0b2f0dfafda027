"""What a folder that can be served holds, and nothing that serving does not need."""
