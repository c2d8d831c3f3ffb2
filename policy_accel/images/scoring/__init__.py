"""How a score of an image run is made: under which protocol images are drawn, and their measuring."""
