"""Review of annotations in a browser: a small server on this machine, and a page of plain JavaScript and SVG."""
