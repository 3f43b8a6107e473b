"""Models: one function of the option's name a file, from shape and outputs to an untrained net."""
