"""What people and other programs are told: mail, notify scripts, log lines. ``dispatch`` decides who hears of what."""
