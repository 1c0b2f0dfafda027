"""Is the exported classifier the one that was trained?"""
