"""What plugins are made of: snapshots of their files."""
