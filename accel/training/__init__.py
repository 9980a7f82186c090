"""Training in place: banks of cells that are read both ways and updated by pulses."""
