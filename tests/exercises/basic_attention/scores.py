"""Right writings and mutants."""
