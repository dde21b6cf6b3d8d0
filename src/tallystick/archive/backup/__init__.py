"""Backups: what an installation holds, encrypted piece by piece in a store of its own, and put together again (docs/backup.md).
What a backup says of itself is `evidence.backup_note`: signed, and written last, so that a half backup is none.

    objects   the store: encrypted pieces named by content, notes beside them
    capture   what belongs into a backup, in an order in which a running server may be copied
    take      one backup, and the deleting of old ones
    key_file  the key store as an age file, for offline recipients
    restore   a backup put together in a scratch directory, verified, and only then given its name
"""
