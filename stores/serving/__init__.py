"""A store in the browser: a read-only server of pages and files on this machine."""
