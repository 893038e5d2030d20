"""The report of an evaluation as a single HTML file: tables, figures with values on hover, and pictures."""
