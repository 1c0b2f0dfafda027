"""The fine-tuning run, its loop, and how an interrupted one goes on."""
