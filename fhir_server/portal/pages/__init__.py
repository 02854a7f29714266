"""Templates and style rules of these pages; a package so that they are installed with the code."""
