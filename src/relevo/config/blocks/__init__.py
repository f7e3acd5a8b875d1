"""The keywords, one file for each part of the tree; ``registry`` evaluates them."""
