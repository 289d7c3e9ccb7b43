"""The statements of consent, by whom they serve; the caller owns the transaction."""
