"""From a cell to its rows: data, split, models, outputs, metrics."""
