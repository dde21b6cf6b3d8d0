"""The console: server-rendered pages that work without script, and small modules that add to them."""
