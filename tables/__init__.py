"""The tables of the papers: measured scores beside published ones."""
