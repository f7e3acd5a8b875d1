"""The words of the language, a file for each part of the tree; ``registry`` says how they are evaluated."""
