"""Statistics of a study: comparisons, ranks, missing cells."""
