"""What is measured, and how: processes, draws, clocks and memory."""
