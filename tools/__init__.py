"""Programs that write the documentation's pages, its notebooks and the survey of mutants."""
