"""Search trees in a browser: one file that needs nothing else, or a page that follows a file which is still written."""
