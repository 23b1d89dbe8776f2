"""What can be typed: a file a command, each of which parses, calls and prints."""
