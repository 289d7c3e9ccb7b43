"""The tables of followups: one function per query or change. The caller owns the transaction.

Lock order, against deadlocks: a conversation's row, contacts and their lead, addresses, the rows
of steps.
"""
