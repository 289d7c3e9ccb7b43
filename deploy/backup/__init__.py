"""Backups with pgBackRest: the database with its log, the records of consent, the configuration.

Keys are not part of a backup: .env stays elsewhere, and no one can read one without its BACKUP_KEY.
"""
