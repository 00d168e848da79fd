"""What a user sees: commands in a terminal or a pipe, real servers, real engines, own files."""
