"""The command line: one file for each command; torch and other slow imports wait until a command needs them."""
