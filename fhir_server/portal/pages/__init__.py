"""Templates and style sheet of the portal. A package, so that they are installed with the code."""
