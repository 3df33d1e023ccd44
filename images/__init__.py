"""How image files are read: which there are, what is damaged, decoded once into a file, new images."""
