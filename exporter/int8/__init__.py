"""Int8 recipes, the search among them, and the accuracy budget that judges them."""
