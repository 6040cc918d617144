"""Reading and writing of files, for all rooms."""
