"""The ledger: its tables, and one function per question or change. The caller owns the transaction.

`now()` is always the database's: leases and due times of several workers need one clock.
"""
