"""The tables of the papers: our rows beside what was published."""
