"""One package for each class of attack, one file for each attack."""
