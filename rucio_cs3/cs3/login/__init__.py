"""Who we are at a cloud: secrets, ways to log in, and tokens that stay fresh."""
