"""Every means of recovery on the same speech and the same networks, measured and shown."""
