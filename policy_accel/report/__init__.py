"""One page that shows runs: an HTML file that holds all it needs. Reading runs takes no torch."""
