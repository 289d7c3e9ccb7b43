"""The ledger: its tables, and one function per query or change. The caller owns the transaction.

`now()` is always the database's: the leases and due times of several workers need one clock.
"""
