"""What happened, as log lines. Rooms say it with `events.emit`; nothing here decides anything."""
