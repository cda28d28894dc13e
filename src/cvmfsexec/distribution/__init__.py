"""What is sent to where there is nothing: the dist, and one file with everything."""
