"""How fast this project trains, beside the same training as tutorials write it."""
