"""The export `web`: an index as static files whose page searches in the browser by itself."""
