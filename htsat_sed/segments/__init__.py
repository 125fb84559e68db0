"""Events cut out of their recordings as clips to listen to: the choice, the names, the cut, the index."""
