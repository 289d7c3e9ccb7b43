"""Backups with pgBackRest: the database with its log, the records of consent, the configuration.

Keys are not part of a backup: keep .env elsewhere, as its BACKUP_KEY is needed to read a backup.
"""
