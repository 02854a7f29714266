"""What a caller may see: permissions, the View, versions as a caller counts them, authentication."""
