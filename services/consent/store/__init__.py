"""Every SQL statement of consent; the caller owns the transaction."""
