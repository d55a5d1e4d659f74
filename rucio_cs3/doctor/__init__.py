"""What an endpoint can do, found out by trying, and what to do where it cannot; read :mod:`.examination` first."""
