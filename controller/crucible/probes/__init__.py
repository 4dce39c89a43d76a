"""Looking from outside whether something serves."""
