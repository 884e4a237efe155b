"""``martlet quickstart``: a tour of the commands on a tiny model that is made on the spot."""
