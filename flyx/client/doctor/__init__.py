"""What stands between this computer and a transfer: one module a subject, each check a coroutine."""
