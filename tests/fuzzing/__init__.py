"""Everything that reads a stranger's file, as functions of bytes: for the default suite, and for a guided fuzzer."""
