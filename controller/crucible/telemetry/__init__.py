"""What the controller tells people and programs about itself."""
