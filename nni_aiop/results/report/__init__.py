"""The page `report.html`: what a search, or a network that was shrunk, looks like."""
